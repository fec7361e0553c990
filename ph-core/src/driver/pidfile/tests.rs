//! Tests of the pidfile and its lock.

use super::*;

fn pidfile(folder: &Path, single_instance: bool) -> Pidfile {
    Pidfile { path: folder.join("master.pid"), single_instance }
}

#[test]
fn a_single_instance_refuses_the_second_and_names_the_holder() {
    let folder = tempfile::tempdir().unwrap();
    let _first = pidfile(folder.path(), true).claim().unwrap();
    let refused = pidfile(folder.path(), true).claim().unwrap_err();
    let text = refused.to_string();
    assert!(text.contains(&std::process::id().to_string()), "{text}");
}

#[test]
fn instances_take_the_lowest_free_number() {
    let folder = tempfile::tempdir().unwrap();
    let claim = || {
        let mut held = pidfile(folder.path(), false).claim().unwrap();
        held.write().unwrap();
        held
    };
    let (first, second, third) = (claim(), claim(), claim());
    assert_eq!((first.instance, second.instance, third.instance), (1, 2, 3));
    drop(second);
    assert_eq!(claim().instance, 2);
    assert!(folder.path().join("master.pid").exists());
    assert!(folder.path().join("master.3.pid").exists());
}

#[test]
fn an_instance_takes_its_own_number_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let pidfile = pidfile(folder.path(), false);
    let third = pidfile.claim_instance(3).unwrap();
    assert_eq!(third.instance, 3);
    assert!(matches!(pidfile.claim_instance(3), Err(RunError::AlreadyRunning { .. })));
    drop(third);
    assert_eq!(pidfile.claim().unwrap().instance, 1);
}

#[test]
fn no_two_pidfiles_share_a_lock_and_none_is_its_own() {
    let lock = |path: &str| Pidfile { path: path.into(), single_instance: true };
    assert_eq!(lock("/run/web.pid").path_of(1, "lock"), Path::new("/run/web.lock"));
    assert_eq!(lock("/run/web.a").path_of(1, "lock"), Path::new("/run/web.a.lock"));
    assert_eq!(lock("/run/web.lock").path_of(1, "lock"), Path::new("/run/web.lock.lock"));
    assert_eq!(lock("/run/web.pid").path_of(2, "pid"), Path::new("/run/web.2.pid"));
}

#[test]
fn a_link_is_replaced_not_followed_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    std::os::unix::fs::symlink(&victim, folder.path().join("master.pid")).unwrap();
    let mut held = pidfile(folder.path(), true).claim().unwrap();
    held.write().unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    drop(held);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn what_a_predecessor_left_half_written_is_gone_with_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let half_written = folder.path().join(".master.pid.new");
    std::fs::write(&half_written, "12").unwrap();
    let mut held = pidfile(folder.path(), true).claim().unwrap();
    held.write().unwrap();
    assert!(!half_written.exists());
    let pid = std::fs::read_to_string(folder.path().join("master.pid")).unwrap();
    assert_eq!(pid.trim(), std::process::id().to_string());
}

#[test]
fn a_look_finds_who_runs_and_what_is_in_the_way_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.pid");
    let texts = |single| -> Vec<String> {
        let (running, errors) = pidfile(folder.path(), single).look();
        assert!(running.is_empty());
        errors.iter().map(ToString::to_string).collect()
    };
    assert_eq!(texts(true), [""; 0]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    for (length, count) in [(0, 0), (64, 0), (65, 1)] {
        std::fs::write(&path, "x".repeat(length)).unwrap();
        assert_eq!(texts(true).len(), count, "{length}");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(texts(true)[0].contains("EISDIR"));
    std::fs::remove_dir(&path).unwrap();
    let _held = pidfile(folder.path(), false).claim().unwrap();
    let own = i32::try_from(std::process::id()).unwrap();
    for single in [true, false] {
        let (running, errors) = pidfile(folder.path(), single).look();
        assert_eq!(running, [Running { instance: 1, pid: Some(own) }]);
        assert!(errors.is_empty(), "{errors:?}");
    }
    let missing = pidfile(&folder.path().join("missing"), true).look().1;
    assert!(missing[0].to_string().contains("master.lock"), "{missing:?}");
}

/// What somebody else had put there is refused by a start as it is by a look, and kept.
#[test]
fn what_is_no_pidfile_is_kept_by_a_start_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.pid");
    let refused = |wanted: &str| {
        let text = pidfile(folder.path(), true).claim().unwrap_err().to_string();
        assert!(text.contains("master.pid") && text.contains(wanted), "{text}");
        assert!(!folder.path().join("master.lock").exists());
    };
    let text = "root:x:0:0\n".repeat(10);
    std::fs::write(&path, &text).unwrap();
    refused("110 bytes");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    std::fs::remove_file(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    refused("a device or a socket");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refused("EISDIR");
    std::fs::remove_dir(&path).unwrap();
    // What a power cut may leave, and what others write.
    for text in ["4711 (ph)\n", "\0\0\0\0\0", ""] {
        std::fs::write(&path, text).unwrap();
        pidfile(folder.path(), true).claim().unwrap();
    }
}

#[test]
fn a_look_sees_that_the_new_pidfile_has_no_place() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".master.pid.new")).unwrap();
    let text = pidfile(folder.path(), true).look().1.remove(0).to_string();
    assert!(text.contains(".master.pid.new is a directory"), "{text}");
    let long = folder.path().join(format!("{}.pid", "a".repeat(247)));
    let long = Pidfile { path: long, single_instance: true };
    let text = long.look().1.remove(0).to_string();
    assert!(text.contains("ENAMETOOLONG"), "{text}");
    assert!(long.claim().unwrap().write().is_err());
}

#[test]
fn masters_behind_a_free_number_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let first = pidfile(folder.path(), false).claim().unwrap();
    let _second = pidfile(folder.path(), false).claim().unwrap();
    drop(first);
    let (running, errors) = pidfile(folder.path(), false).look();
    assert_eq!(running.iter().map(|it| it.instance).collect::<Vec<_>>(), [2]);
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn files_that_a_failed_successor_has_removed_are_put_right() {
    let folder = tempfile::tempdir().unwrap();
    let of = pidfile(folder.path(), true);
    let mut held = of.claim().unwrap();
    held.write().unwrap();
    for name in ["master.lock", "master.pid"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    held.put_right().unwrap();
    let pid = std::fs::read_to_string(folder.path().join("master.pid")).unwrap();
    assert_eq!(pid.trim(), std::process::id().to_string());
    assert!(matches!(of.claim(), Err(RunError::AlreadyRunning { .. })));
    // What is another's by now is told of, and stays that one's.
    std::fs::remove_file(of.lock()).unwrap();
    let other = of.claim().unwrap();
    assert!(matches!(held.put_right(), Err(RunError::AlreadyRunning { .. })));
    drop(held);
    assert!(of.lock().exists());
    drop(other);
}

#[test]
fn what_a_successor_does_not_own_yet_it_leaves_behind() {
    let folder = tempfile::tempdir().unwrap();
    let of = pidfile(folder.path(), true);
    let held = of.claim().unwrap();
    let lock = held.lock_fd().try_clone_to_owned().unwrap();
    let mut adopted = HeldPidfile::adopt(lock, of.path.clone(), 1, &of).unwrap();
    adopted.take_over().unwrap();
    drop(adopted);
    assert!(of.lock().exists() && of.path.exists());
    let lock = held.lock_fd().try_clone_to_owned().unwrap();
    let mut adopted = HeldPidfile::adopt(lock, of.path.clone(), 1, &of).unwrap();
    adopted.take_over().unwrap();
    adopted.own();
    drop(adopted);
    assert!(!of.lock().exists() && !of.path.exists());
}
