//! What two sections must not have in common: each has a master of its own, with its own files and
//! addresses.
//!
//! Each section is compared with all before it at once, through maps, and told of the first that has
//! what it wants: a file may have very many sections.

use std::collections::HashMap;

use ph_config::{Origin, OwnFile, Whereabouts};
use ph_core::Address;

use super::Checked;
use super::findings::Findings;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::wire::Service;

/// Adds what each section has in common with those before it.
pub(super) fn compare(checked: &[Checked], findings: &mut Findings) {
    let services = || {
        let all = checked.iter().enumerate();
        all.filter_map(|(section, it)| Some(Member { section, service: it.service.as_ref()? }))
    };
    let files = services().map(|member| (member, member.files())).collect::<Vec<_>>();
    compare_files(&files, findings);
    compare_instances(&files, findings);
    compare_addresses(services(), findings);
}

/// A section that could be loaded.
#[derive(Clone, Copy)]
struct Member<'a> {
    section: usize,
    service: &'a Service,
}

/// Its files, and where they are.
type Files = Vec<(Whereabouts, OwnFile)>;

impl Member<'_> {
    fn files(&self) -> Files {
        let files = self.service.settings.own_files().into_iter();
        files.map(|file| (Whereabouts::of(&file.path), file)).collect()
    }

    /// Whether it shall be the only one of its name.
    fn is_alone(&self) -> bool {
        self.service.settings.single_instance
    }
}

fn compare_files(files: &[(Member<'_>, Files)], findings: &mut Findings) {
    let mut taken: HashMap<&Whereabouts, (Member<'_>, &OwnFile)> = HashMap::new();
    for (member, own) in files {
        // Those with the same pidfile have the same lock, and that is told once.
        let mut has_told = false;
        for (place, file) in own {
            let Some((other, theirs)) = taken.get(place) else { continue };
            let is_same = theirs.what == file.what;
            let is_name = is_same && file.key == "pidfile";
            if is_name && std::mem::replace(&mut has_told, true) {
                continue;
            }
            let path = file.path.display();
            let both = format!("both have the {} {path}", file.what);
            let (why, is_warning) = match file.what {
                _ if !is_same => {
                    let (their, own) = (theirs.what, file.what);
                    (format!("{path} is the {their} of the first, the {own} of the other"), false)
                }
                "log file" => (both, true),
                _ if is_name && !member.is_alone() && !other.is_alone() => {
                    (format!("{both}: they would be instances 1 and 2 of one name"), true)
                }
                _ => (both, false),
            };
            let keys = [theirs.key, file.key];
            let mut failure = failure(*other, *member, keys, &why, is_warning);
            if is_same && file.what == "log file" {
                failure = failure.remedy("give each section its own, or %(section)s in the name");
            }
            findings.beside(member.section, other.service.settings.name(), failure, is_warning);
        }
        for (place, file) in own {
            taken.entry(place).or_insert((*member, file));
        }
    }
}

/// The files of further instances are there only while these run.
fn compare_instances(files: &[(Member<'_>, Files)], findings: &mut Findings) {
    let several = files.iter().filter(|(member, _)| !member.is_alone());
    let locks: HashMap<_, _> = several
        .flat_map(|(member, own)| own.iter().map(move |(place, file)| (place, file, *member)))
        .filter(|(_, file, _)| file.what == "lock file")
        .map(|(place, _, member)| (place, member))
        .collect();
    for (member, own) in files {
        for (place, file) in own.iter().filter(|(_, file)| file.key != "pidfile") {
            let first = place.lock_of_first_instance();
            let Some(other) = first.and_then(|lock| locks.get(&lock)) else { continue };
            if other.section == member.section {
                continue;
            }
            let (path, name) = (file.path.display(), other.service.settings.name());
            let why =
                format!("{path}, its {}, may be needed by a further instance of {name}", file.what);
            let failure = failure(*other, *member, ["pidfile", file.key], &why, true);
            findings.beside(member.section, name, failure, true);
        }
    }
}

/// Unix sockets are files, and compared as such. Names are looked up once.
fn compare_addresses<'a>(services: impl Iterator<Item = Member<'a>>, findings: &mut Findings) {
    let mut resolved: HashMap<String, Vec<Address>> = HashMap::new();
    let mut taken: HashMap<u16, Vec<(Member<'_>, Address, Address)>> = HashMap::new();
    for member in services {
        let mut own = Vec::new();
        for address in member.service.addresses() {
            let Address::Tcp { port, .. } = address else { continue };
            let known = resolved.entry(address.to_string());
            let at = known.or_insert_with(|| address.resolved()).clone();
            let others = taken.get(&port).into_iter().flatten();
            let overlaps = |theirs: &Address| at.iter().any(|own| theirs.overlaps(own));
            if let Some((other, theirs, _)) = others.into_iter().find(|it| overlaps(&it.2)) {
                let why = match address == *theirs {
                    true => format!("both listen on {address}"),
                    false => format!("{theirs} and {address} overlap"),
                };
                let failure = failure(*other, member, ["bind"; 2], &why, false);
                findings.beside(member.section, other.service.settings.name(), failure, false);
            }
            own.extend(at.into_iter().map(|at| (port, (member, address.clone(), at))));
        }
        // The kernel chooses another instead of 0 each time.
        for (port, entry) in own.into_iter().filter(|(port, _)| *port != 0) {
            taken.entry(port).or_default().push(entry);
        }
    }
}

fn failure(
    other: Member<'_>,
    member: Member<'_>,
    [their_key, key]: [&str; 2],
    why: &str,
    is_warning: bool,
) -> Failure {
    let (first, second) = (&other.service.settings, &member.service.settings);
    let (theirs, own) = (first.origin(their_key), second.origin(key));
    let lead = if is_warning { "warning for" } else { "cannot start" };
    let failure = Failure::new(Exit::Config, why).value(own.clone(), key).attempt(format!(
        "{lead} {} beside {}",
        second.name(),
        first.name()
    ));
    let failure = match theirs == own && theirs != Origin::Default {
        true => failure,
        false => failure.set_by(format!("{theirs} {their_key} and {own} {key}")),
    };
    failure.remedy("give each section its own")
}
