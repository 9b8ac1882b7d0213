//! The smallest HTTP client that can ask a health check.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::process::Process;

/// How long one try may take.
const TRY_MAX: Duration = Duration::from_secs(2);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// An answer to a health check is short.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Its body.
    pub(crate) body: String,
}

/// Where a client on this machine reaches what listens on `address`.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// `GET path`, over HTTP/1.0: the server ends its answer by closing the connection.
///
/// # Errors
/// No connection, or no HTTP answer in time.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, TRY_MAX)?;
    stream.set_read_timeout(Some(TRY_MAX))?;
    stream.set_write_timeout(Some(TRY_MAX))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP"))
}

/// Waits until `process` answers `path` with 200.
///
/// # Errors
/// It ended, it took longer than `longest`, or `give_up` said so.
pub(crate) fn wait_until_healthy(
    process: &mut Process,
    address: SocketAddr,
    path: &str,
    longest: Duration,
    give_up: &mut dyn FnMut() -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + longest;
    loop {
        let answer = get(address, path);
        if matches!(&answer, Ok(answer) if answer.status == 200) {
            return Ok(());
        }
        process.check_runs()?;
        if give_up() {
            bail!("stopped before {} was ready", process.name());
        }
        if Instant::now() > deadline {
            let last = match answer {
                Ok(Answer { status, body }) => format!("status {status}: {body}"),
                Err(error) => error.to_string(),
            };
            let (name, tail) = (process.name(), process.log_tail());
            bail!("{name} does not answer http://{address}{path} after {longest:?} (last: {last}); {tail}");
        }
        std::thread::sleep(PAUSE);
    }
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status_line = head.lines().next()?.strip_prefix("HTTP/1.")?;
    let status = status_line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_body() {
        let ok = parse("HTTP/1.0 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno");
        assert_eq!(ok, Some(Answer { status: 503, body: "no".to_owned() }));
        for bad in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_listens_everywhere_is_asked_on_the_loopback() {
        assert_eq!(reachable(([0, 0, 0, 0], 80).into()), ([127, 0, 0, 1], 80).into());
        assert_eq!(reachable(([10, 0, 0, 1], 80).into()), ([10, 0, 0, 1], 80).into());
    }
}
