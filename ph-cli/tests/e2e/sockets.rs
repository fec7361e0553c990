//! How listening sockets are made, and what a reload changes of those that stay.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::{Group, User};

use crate::ph;
use crate::reload::{reload, start, wait_reloaded};

const BASE: &str = "command = sleep 1000\nmin_uptime = 0.1\nbind = unix:web.sock\n";

/// A worker that ends at once.
const BAD: &str = "command = false\nmin_uptime = 0.1\nbind = unix:web.sock\n";

/// Permissions, user and group of a file.
fn access(path: &Path) -> (u32, u32, u32) {
    let there = std::fs::symlink_metadata(path).expect("a socket");
    (there.mode() & 0o777, there.uid(), there.gid())
}

fn inode(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).expect("a socket").ino()
}

/// How many connections a socket that nobody accepts from takes.
fn queue_of(path: &Path) -> usize {
    let address = UnixAddr::new(path).expect("a short path");
    let mut waiting = Vec::new();
    loop {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("a socket");
        if connect(client.as_raw_fd(), &address).is_err() {
            return waiting.len();
        }
        waiting.push(client);
        assert!(waiting.len() < 500, "the queue has no end");
    }
}

#[test]
fn a_unix_socket_has_its_mode_and_its_owner_and_a_reload_changes_both_in_place() {
    let stage = ph();
    let path = stage.path("web.sock");
    let nobody = User::from_name("nobody").expect("users").expect("nobody");
    let daemon = Group::from_name("daemon").expect("groups").expect("daemon");
    let given = format!("{BASE}socket_mode = 0660\nsocket_owner = nobody:daemon\n");
    let (master, _) = start(&stage, &given, 1);
    let first = inode(&path);
    assert_eq!(access(&path), (0o660, nobody.uid.as_raw(), daemon.gid.as_raw()));
    reload(&stage, &master, BASE);
    wait_reloaded(&stage, 1);
    assert_eq!(access(&path), (0o600, 0, 0));
    reload(&stage, &master, &format!("{BASE}socket_owner = nobody\n"));
    wait_reloaded(&stage, 2);
    assert_eq!(access(&path), (0o600, nobody.uid.as_raw(), nobody.gid.as_raw()));
    assert_eq!(inode(&path), first);
    assert_eq!(master.stop(), 0);
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_is_the_workers_if_nobody_else_is_named() {
    let stage = ph();
    let nobody = User::from_name("nobody").expect("users").expect("nobody");
    std::fs::set_permissions(stage.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("a folder that others may enter");
    let (master, _) = start(&stage, &format!("{BASE}user = nobody\n"), 1);
    let owner = (0o600, nobody.uid.as_raw(), nobody.gid.as_raw());
    assert_eq!(access(&stage.path("web.sock")), owner);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_reload_that_fails_leaves_the_sockets_as_they_were() {
    let stage = ph();
    let (master, _) = start(&stage, &format!("{BASE}backlog = 3\n"), 1);
    let path = stage.path("web.sock");
    assert!(queue_of(&path) > 0, "and now it is full");
    stage.expect_error("reload failed: worker ");
    let bad = format!("{BAD}backlog = 90\nsocket_mode = 0666\nsocket_owner = nobody\n");
    reload(&stage, &master, &bad);
    stage.log().wait_for("generation 2 was rolled back: generation 1 serves again");
    assert_eq!((access(&path), queue_of(&path)), ((0o600, 0, 0), 0));
    assert_eq!(master.stop(), 0);
}

#[test]
fn the_length_of_a_queue_follows_a_reload() {
    let stage = ph();
    let (master, _) = start(&stage, &format!("{BASE}backlog = 3\n"), 1);
    let path = stage.path("web.sock");
    let short = queue_of(&path);
    assert!((3..=5).contains(&short), "{short}");
    // Those that waited have gone, but the kernel keeps their places until they are accepted.
    reload(&stage, &master, &format!("{BASE}backlog = 90\n"));
    wait_reloaded(&stage, 1);
    let more = queue_of(&path);
    assert!(more > 50, "{more}");
    assert_eq!(master.stop(), 0);
}

#[test]
fn an_owner_that_cannot_be_is_refused_by_its_key() {
    let stage = ph();
    stage.configure(&format!("{BASE}socket_owner = no.such.user\n"));
    let (code, stderr) = stage.start(&[]).wait_with_stderr();
    assert_eq!(code, 6, "{stderr}");
    for wanted in ["there is no user \"no.such.user\"", "socket_owner", "getent passwd"] {
        assert!(stderr.contains(wanted), "{stderr}");
    }
}

#[test]
fn what_the_kernel_does_not_give_or_nobody_gets_is_a_warning() {
    let stage = ph();
    let lines = format!("{BASE}backlog = 100000000\ndefer_accept = yes\nkeepalive = 60\n");
    let (master, _) = start(&stage, &lines, 1);
    for wanted in [
        "backlog = 100000000 is more than the kernel gives",
        "defer_accept = true has no effect: no TCP socket",
        "keepalive = 1m has no effect: no TCP socket",
    ] {
        assert_eq!(stage.log().with(wanted).len(), 1, "{wanted}");
    }
    reload(
        &stage,
        &master,
        "command = sleep 1000\nmin_uptime = 0.1\nbind = 127.0.0.1:0\nsocket_mode = 0666",
    );
    stage.log().wait_for("socket_mode = 0666 has no effect: no Unix socket");
    wait_reloaded(&stage, 1);
    assert_eq!(master.stop(), 0);
}

#[test]
fn both_kinds_of_addresses_reach_the_unspecified_address_of_ipv6() {
    let stage = ph();
    let lines = "command = sleep 1000\nmin_uptime = 0.1\nbind = [::]:0\nkeepalive = on\n";
    let (master, _) = start(&stage, lines, 1);
    let line = stage.log().wait_for("listening on tcp://[::]:");
    let port: u16 = line.message.rsplit(':').next().expect("a port").parse().expect("a number");
    std::net::TcpStream::connect(("127.0.0.1", port)).expect("over IPv4");
    std::net::TcpStream::connect(("::1", port)).expect("over IPv6");
    assert_eq!(master.stop(), 0);
}
