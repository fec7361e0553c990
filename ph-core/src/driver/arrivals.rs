//! Signals that have come: who sent them, what they mean, and which orders they carry.

use std::str::FromStr as _;

use nix::sys::signal::Signal;
use tracing::info;

use super::Driver;
use crate::arbiter::{ORDERS, Order};
use crate::sys::process;
use crate::sys::signals::{Arrived, Sender};

impl Driver<'_> {
    pub(super) fn take_signals(&mut self, orders: &mut Vec<Order>) {
        for arrived in self.signals.take() {
            if arrived.signal == Signal::SIGCHLD {
                self.reap_pending = true;
                continue;
            }
            let row = ORDERS.iter().find(|row| row.signal == arrived.signal.as_str());
            let Some(row) = row else { continue };
            info!("{}: {}", Received(arrived), row.meaning);
            match row.order {
                Some(Order::ScaleBy(by)) => {
                    let count = i32::try_from(arrived.count).unwrap_or(i32::MAX);
                    orders.push(Order::ScaleBy(by.saturating_mul(count)));
                }
                Some(order) => {
                    if order == Order::Reload {
                        self.load_flags.join(false, false);
                    }
                    orders.push(order);
                }
                None => {}
            }
        }
    }
}

/// A signal and who sent it.
struct Received(Arrived);

impl std::fmt::Display for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Arrived { signal, count, sender } = self.0;
        write!(f, "{signal}")?;
        if count > 1 {
            write!(f, " x{count}")?;
        }
        match sender {
            Some(Sender { pid: 0, .. }) => f.write_str(" from outside this pid namespace"),
            Some(Sender { pid, uid }) => write!(f, " from pid {pid} uid {uid}"),
            None => f.write_str(" from the kernel, as by a terminal"),
        }
    }
}

/// The signals a master catches. On a terminal SIGWINCH says that the window has another size.
pub(super) fn caught_signals() -> Vec<Signal> {
    let has_terminal = process::has_controlling_terminal();
    let all = ORDERS.iter().filter_map(|row| Signal::from_str(row.signal).ok());
    all.filter(|signal| *signal != Signal::SIGWINCH || !has_terminal).collect()
}
