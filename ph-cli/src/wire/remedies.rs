//! What to do about what the system said, where its words do not say it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ph_core::Command;

use super::Service;
use crate::source;

/// The longest path a socket may have, and the longest name in a folder whose path is longer than that.
const SOCKET_PATH: usize = 107;
const SOCKET_NAME: usize = 80;

/// A program that cannot be executed.
pub(super) fn of_command(service: &Service, code: u8, why: &str) -> String {
    let program = service.command.as_ref().and_then(Command::program).unwrap_or(Path::new(""));
    let shown = program.display();
    let has_folder = shown.to_string().contains('/');
    match code {
        127 if has_folder => format!("ls -l {shown}"),
        127 => format!("command -v {shown}, or give its whole path"),
        _ if why.contains("EACCES") && !has_folder => {
            format!("`type -a {shown}` shows which there are; give the whole path of one")
        }
        _ if why.contains("EACCES") => {
            let settings = &service.settings;
            let folder = settings.directory.as_ref().unwrap_or(&settings.base_path);
            let is_other = settings.user.is_some() || settings.effective_group().is_some();
            of_forbidden(program, &folder.join(program), is_other)
        }
        _ => format!("file {shown}"),
    }
}

/// A program that is there, or that cannot be seen, and may not be executed: `path` is where `program`
/// is, and `is_other` says whether the workers are somebody else.
fn of_forbidden(program: &Path, path: &Path, is_other: bool) -> String {
    let (program, shown) = (program.display(), path.display());
    let by_path = format!("`namei -l {shown}` shows who may use which part of the path");
    let by_mount = format!("`findmnt -T {shown}` shows whether its file system is noexec");
    let is_root = source::effective_uid().is_ok_and(|uid| uid == 0);
    match path.metadata() {
        Err(_) => by_path,
        Ok(it) if !it.is_file() => format!("file {program}"),
        Ok(it) => match it.permissions().mode() & 0o111 {
            0 => format!("chmod 0755 {program}"),
            _ if is_other => format!("{by_path}, and {by_mount}"),
            0o111 => by_mount,
            _ if is_root => by_mount,
            _ => by_path,
        },
    }
}

/// An address that cannot be listened on.
pub(super) fn of_address(address: &str, why: &str) -> String {
    match address.rsplit_once(':') {
        _ if address.starts_with("unix:") => {
            let path = &address["unix:".len()..];
            match why.contains("ENAMETOOLONG") || why.contains("SUN_LEN") {
                true => format!(
                    "shorten it: the path of a socket has at most {SOCKET_PATH} bytes, or its name \
                     at most {SOCKET_NAME}"
                ),
                false => format!("ls -l {path}"),
            }
        }
        Some(("fd" | "sd", _)) => {
            "look at what starts ph: a socket unit of systemd passes sockets by FileDescriptorName="
                .to_owned()
        }
        Some(_) if why.contains("EACCES") => {
            "choose a port that is not reserved for root, such as one above 1023".to_owned()
        }
        Some(_) if why.contains("EADDRNOTAVAIL") => {
            "`ip address` says which addresses this machine has".to_owned()
        }
        // Of what the system says of names it does not know there is no errno.
        Some((host, _)) if !why.ends_with(')') => {
            format!("getent ahosts {}", host.trim_start_matches("tcp://"))
        }
        Some((_, port)) => format!("ss -ltnp 'sport = :{port}'"),
        None => "write HOST:PORT or unix:PATH".to_owned(),
    }
}

/// A limit or a priority that this process may not give its workers.
pub(super) fn of_limit(service: &Service, condition: &str) -> String {
    const NR_OPEN: &str = "/proc/sys/fs/nr_open";
    if !source::effective_uid().is_ok_and(|uid| uid == 0) {
        return "only root may go beyond the limits it was given; ask for less".to_owned();
    }
    let most: Option<u64> =
        std::fs::read_to_string(NR_OPEN).ok().and_then(|text| text.trim().parse().ok());
    let hard = service.settings.rlimit_nofile.map(|limit| limit.hard.unwrap_or(u64::MAX));
    match (most, hard) {
        (Some(most), Some(hard)) if condition == "RLIMIT_NOFILE" && hard > most => {
            "not even root may go beyond `sysctl fs.nr_open`; ask for less, or raise that"
                .to_owned()
        }
        _ => "this root may not go beyond the limits it was given, as in a container; ask for less"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_not_to_listen_has_its_remedy() {
        for (address, why, wanted) in [
            ("unix:/run/a:b.sock", "Permission denied (EACCES)", "ls -l /run/a:b.sock"),
            ("unix:/run/a.sock", "File name too long (ENAMETOOLONG)", "shorten it"),
            ("unix:/run/a.sock", "path must be shorter than SUN_LEN", "shorten it"),
            ("tcp://0.0.0.0:80", "Permission denied (EACCES)", "choose a port"),
            ("tcp://10.0.0.1:80", "Cannot assign it (EADDRNOTAVAIL)", "`ip address`"),
            ("tcp://[::1]:80", "Address in use (EADDRINUSE)", "ss -ltnp 'sport = :80'"),
            ("tcp://web.local:80", "Name or service not known", "getent ahosts web.local"),
        ] {
            let remedy = of_address(address, why);
            assert!(remedy.starts_with(wanted), "{address}: {remedy}");
        }
    }

    #[test]
    fn a_mode_is_blamed_only_if_it_is_the_cause() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let remedy = |mode, is_other| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).unwrap();
            of_forbidden(Path::new("./program"), &path, is_other)
        };
        assert_eq!(remedy(0o644, false), "chmod 0755 ./program");
        assert!(remedy(0o755, false).starts_with("`findmnt -T /"));
        let both = remedy(0o755, true);
        assert!(both.starts_with("`namei -l /") && both.contains("findmnt"), "{both}");
        let below = of_forbidden(Path::new("./program/x"), &path.join("x"), false);
        assert!(below.starts_with("`namei -l /"), "{below}");
        let is_folder = of_forbidden(Path::new("."), folder.path(), false);
        assert_eq!(is_folder, "file .");
    }
}
