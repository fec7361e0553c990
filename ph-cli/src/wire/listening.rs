//! Where a service listens, and how its sockets are made.

use ph_config::{Bind, Origin};
use ph_core::{Account, Address, KeepAlive, SocketOptions};

use super::{Service, conditions};
use crate::failure::Failure;

/// What the kernel allows a queue of connections, for this network namespace.
const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";

impl Service {
    /// Where it listens.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        let mut addresses: Vec<_> = self.settings.bind.iter().map(address).collect();
        addresses.extend(self.settings.unix_socket.clone().map(Address::Unix));
        addresses
    }

    /// The key that an address was set by.
    pub(super) fn listen_key(&self, address: &str) -> &'static str {
        let of_key = self.settings.unix_socket.clone().map(Address::Unix);
        let is_of_key = of_key.is_some_and(|socket| socket.to_string() == address);
        if is_of_key { "unix_socket" } else { "bind" }
    }

    /// Whose Unix sockets are to be, if that is said.
    pub(super) fn socket_owner(&self) -> Result<Option<Account>, Failure> {
        let Some(owner) = &self.settings.socket_owner else { return Ok(None) };
        let (user, group) = (owner.user.to_string(), owner.group.as_ref().map(ToString::to_string));
        let found = Account::find(Some(&user), group.as_deref());
        found.map(Some).map_err(|error| conditions::not_found(self, &error, ["socket_owner"; 2]))
    }

    pub(super) fn socket_options(&self, owner: Option<Account>) -> SocketOptions {
        let settings = &self.settings;
        SocketOptions {
            backlog: settings.backlog,
            mode: settings.socket_mode,
            owner,
            keepalive: match settings.keepalive {
                ph_config::KeepAlive::Off => KeepAlive::Off,
                ph_config::KeepAlive::On => KeepAlive::On,
                ph_config::KeepAlive::After(idle) => KeepAlive::After(idle),
            },
            defer_accept: settings.defer_accept,
            reuse_port: settings.reuse_port,
        }
    }

    /// What is said of sockets that there are none of, and what the kernel does not give, by its key.
    pub(super) fn useless_of_sockets(&self) -> Vec<(&'static str, String)> {
        const OF_TCP: [&str; 3] = ["keepalive", "defer_accept", "reuse_port"];
        const OF_UNIX: [&str; 2] = ["socket_mode", "socket_owner"];
        let addresses = self.addresses();
        let has_unix = addresses.iter().any(|it| matches!(it, Address::Unix(_)));
        let has_tcp = addresses.iter().any(|it| matches!(it, Address::Tcp { .. }));
        let is_for_nobody = |keys: &[&'static str], kind: &str| {
            let set =
                keys.iter().copied().filter(|key| self.settings.origin(key) != Origin::Default);
            let told = set.map(|key| {
                let value = self.settings.text(key).unwrap_or_default();
                (key, format!("{key} = {value} has no effect: no {kind} socket is listened on"))
            });
            told.collect::<Vec<_>>()
        };
        let mut useless = Vec::new();
        if !has_tcp {
            useless.extend(is_for_nobody(&OF_TCP, "TCP"));
        }
        if !has_unix {
            useless.extend(is_for_nobody(&OF_UNIX, "Unix"));
        }
        let backlog = self.settings.backlog;
        if let Some(most) = somaxconn().filter(|most| *most < backlog && (has_tcp || has_unix)) {
            let why = format!(
                "backlog = {backlog} is more than the kernel gives: it queues {most} connections \
                 (sysctl net.core.somaxconn)"
            );
            useless.push(("backlog", why));
        }
        useless
    }
}

fn somaxconn() -> Option<u32> {
    std::fs::read_to_string(SOMAXCONN).ok()?.trim().parse().ok()
}

fn address(bind: &Bind) -> Address {
    match bind {
        Bind::Tcp { host, port } => Address::Tcp { host: host.clone(), port: *port },
        Bind::Unix(path) => Address::Unix(path.clone()),
        Bind::Descriptor(number) => Address::Descriptor(*number),
        Bind::Named(name) => Address::Named(name.clone()),
    }
}
