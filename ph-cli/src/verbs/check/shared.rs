//! What two sections must not have in common: each has a master of its own, with its own files and
//! addresses.

use std::path::{Path, PathBuf};

use ph_config::{Bind, LogTarget, Origin};

use super::Checked;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::wire::Service;

/// A file that a service takes for itself.
struct Claim {
    what: &'static str,
    key: &'static str,
    path: PathBuf,
}

/// Adds to each section what it has in common with those before it.
pub(super) fn compare(checked: &mut [Checked]) {
    for index in 1..checked.len() {
        let (before, rest) = checked.split_at_mut(index);
        let Some(Checked { service: Some(service), outlook, .. }) = rest.first_mut() else {
            continue;
        };
        for other in before.iter().filter_map(|it| it.service.as_ref()) {
            outlook.problems.extend(shared_files(other, service));
            outlook.problems.extend(shared_addresses(other, service));
        }
    }
}

fn claims(service: &Service) -> Vec<Claim> {
    let settings = &service.settings;
    let claim = |what, key, path: &Path| Claim { what, key, path: path.to_owned() };
    let mut claims = vec![claim("pidfile", "pidfile", &settings.pidfile)];
    if let LogTarget::File(path) = &settings.log_file {
        claims.push(claim("log file", "log_file", path));
    }
    let of_bind = settings.bind.iter().filter_map(|bind| match bind {
        Bind::Unix(path) => Some(claim("socket", "bind", path)),
        Bind::Tcp { .. } => None,
    });
    claims.extend(of_bind);
    claims.extend(settings.unix_socket.iter().map(|path| claim("socket", "unix_socket", path)));
    // Last, because those with the same pidfile have the same lock, and that is told once.
    claims.push(Claim { what: "lock file", key: "pidfile", path: service.pidfile().lock() });
    claims
}

fn shared_files(other: &Service, service: &Service) -> Vec<Failure> {
    let theirs = claims(other);
    let mut failures = Vec::new();
    let mut has_told = false;
    for own in claims(service) {
        let Some(their) = theirs.iter().find(|their| their.path == own.path) else { continue };
        let is_pidfile = own.key == "pidfile" && their.key == "pidfile";
        if is_pidfile && std::mem::replace(&mut has_told, true) {
            continue;
        }
        let path = own.path.display();
        let why = match own.what == their.what {
            true => format!("both have the {} {path}", own.what),
            false => {
                format!("{path} is the {} of the first, the {} of the other", their.what, own.what)
            }
        };
        failures.push(failure(other, their.key, service, own.key, &why));
    }
    failures
}

/// Unix sockets are files, and compared as such.
fn shared_addresses(other: &Service, service: &Service) -> Vec<Failure> {
    let is_tcp = |address: &ph_core::Address| matches!(address, ph_core::Address::Tcp { .. });
    let theirs: Vec<_> = other.addresses().into_iter().filter(is_tcp).collect();
    let overlaps = service.addresses().into_iter().filter(is_tcp).filter_map(|own| {
        let their = theirs.iter().find(|their| their.overlaps(&own))?;
        let why = match own == *their {
            true => format!("both listen on {own}"),
            false => format!("{their} and {own} overlap"),
        };
        Some(failure(other, "bind", service, "bind", &why))
    });
    overlaps.collect()
}

fn failure(other: &Service, their_key: &str, service: &Service, key: &str, why: &str) -> Failure {
    let (theirs, own) = (other.settings.origin(their_key), service.settings.origin(key));
    let failure = Failure::new(Exit::Config, why).value(own.clone(), key).attempt(format!(
        "cannot start {} beside {}",
        service.settings.name(),
        other.settings.name()
    ));
    let failure = match theirs == own && theirs != Origin::Default {
        true => failure,
        false => failure.set_by(format!("{theirs} {their_key} and {own} {key}")),
    };
    failure.remedy("give each section its own")
}
