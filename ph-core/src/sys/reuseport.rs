//! Which of several sockets that share a port gets a connection: by default one that the kernel takes by a
//! hash of the client's address, else one of those that are chosen here, by chance.
//!
//! The kernel numbers the sockets of a port in the order in which they began to listen. When one leaves, the
//! last one gets its number.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// The most sockets to choose among: a program has 4,096 instructions at most, and each choice takes two.
pub(crate) const CHOICES_MAX: usize = 2000;

/// Has connections to the port of a listener go to those of its sockets that have these numbers; to all, where
/// none is named or more than [`CHOICES_MAX`]. Connections that are queued stay where they are.
pub(crate) fn choose(listener: impl AsFd, numbers: &[u32]) -> io::Result<()> {
    let fd = listener.as_fd().as_raw_fd();
    let mut program = program(numbers);
    let Ok(length) = u16::try_from(program.len()) else {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    };
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let option = libc::SO_ATTACH_REUSEPORT_CBPF;
    let size = size_of_val(&program).try_into().unwrap_or(0);
    let value = (&raw const program).cast();
    // SAFETY: the kernel copies the program, whose instructions are alive; it checks each of them.
    let done = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value, size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives one of the numbers, each as often as the others. A number that no socket has means that the kernel
/// chooses.
fn program(numbers: &[u32]) -> Vec<libc::sock_filter> {
    // The offsets of what is no byte of a packet; of those, a random number (linux/filter.h).
    const SKF_AD_OFF: u32 = (-0x1000_i32).cast_unsigned();
    const SKF_AD_RANDOM: u32 = 56;
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt,
        jf,
        k,
    };
    let answer = |k| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    let (Some((last, others)), true) = (numbers.split_last(), numbers.len() <= CHOICES_MAX) else {
        return vec![answer(u32::MAX)];
    };
    let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let mut program = vec![
        instruction(load, 0, 0, SKF_AD_OFF.wrapping_add(SKF_AD_RANDOM)),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, count),
    ];
    for (drawn, number) in (0..).zip(others) {
        // Unless it is this one, the next instruction is left out.
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, drawn));
        program.push(answer(*number));
    }
    program.push(answer(*last));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn listen(address: SocketAddr) -> TcpListener {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(128).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.into()
    }

    /// Connects so often, and says how many each socket got.
    fn spread(listeners: &[TcpListener], times: usize) -> Vec<usize> {
        let address = listeners[0].local_addr().unwrap();
        let clients: Vec<_> = (0..times).map(|_| TcpStream::connect(address).unwrap()).collect();
        let taken =
            listeners.iter().map(|it| std::iter::from_fn(|| it.accept().ok()).count()).collect();
        drop(clients);
        taken
    }

    #[test]
    fn only_chosen_sockets_get_connections_and_each_its_share() {
        let first = listen("127.0.0.1:0".parse().unwrap());
        let address = first.local_addr().unwrap();
        let all = [first, listen(address), listen(address)];
        choose(&all[0], &[2]).unwrap();
        assert_eq!(spread(&all, 20), [0, 0, 20]);
        choose(&all[1], &[0, 2]).unwrap();
        let taken = spread(&all, 100);
        assert!(taken[0] > 10 && taken[1] == 0 && taken[2] > 10, "{taken:?}");
        for everybody in [&[][..], &[7; CHOICES_MAX + 1]] {
            choose(&all[0], everybody).unwrap();
            let taken = spread(&all, 100);
            assert!(taken.iter().all(|it| *it > 0), "{taken:?}");
        }
        choose(&all[0], &(0..2000).map(|number| number % 2).collect::<Vec<_>>()).unwrap();
        assert_eq!(spread(&all, 20)[2], 0);
    }

    #[test]
    fn the_last_socket_gets_the_number_of_one_that_leaves() {
        let first = listen("127.0.0.1:0".parse().unwrap());
        let address = first.local_addr().unwrap();
        let all = [first, listen(address), listen(address)];
        let copy = all[1].try_clone().unwrap();
        // Also where another process still has it.
        socket2::SockRef::from(&all[1]).shutdown(std::net::Shutdown::Both).unwrap();
        choose(&all[0], &[1]).unwrap();
        let [first, _, last] = all;
        assert_eq!(spread(&[first, last], 20), [0, 20]);
        drop(copy);
    }
}
