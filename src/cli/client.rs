//! A client for our own server: plain HTTP, one request a connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail};

/// An answer larger than this is not one of ours, unless it is taken piece by piece.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Asks with GET, and reads all of the answer.
pub fn get(url: &str, headers: &[(&str, &str)], timeout: Duration) -> anyhow::Result<Answer> {
    request("GET", url, headers, timeout)
}

/// Asks, and reads all of the answer.
pub fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    timeout: Duration,
) -> anyhow::Result<Answer> {
    let mut begun = open(method, url, headers, timeout)?;
    let mut body = Vec::new();
    let mut reader = (&mut begun.body).take(ANSWER_BYTES_MAX);
    reader
        .read_to_end(&mut body)
        .with_context(|| format!("{url} does not answer as expected"))?;
    Ok(Answer {
        status: begun.status,
        body,
    })
}

/// An answer whose body is still to be read.
pub struct Begun {
    pub status: u16,
    pub body: Body,
}

/// Asks; the answer's body is read by the caller. An answer that is cut short is an error.
pub fn open(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    timeout: Duration,
) -> anyhow::Result<Begun> {
    let Some(rest) = url.strip_prefix("http://") else {
        bail!("{url}: only http:// is spoken here");
    };
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let with_port = if host
        .rsplit_once(':')
        .is_some_and(|(_, p)| p.parse::<u16>().is_ok())
    {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let mut last = None;
    for address in with_port
        .to_socket_addrs()
        .with_context(|| format!("{host} is unknown"))?
    {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                return talk(stream, method, host, path, headers, timeout)
                    .with_context(|| format!("{host} does not answer as expected"));
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("{host} can't be reached")),
        None => bail!("{host} has no address"),
    }
}

fn talk(
    mut stream: TcpStream,
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    timeout: Duration,
) -> anyhow::Result<Begun> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    if method != "GET" {
        request.push_str("Content-Length: 0\r\n");
    }
    for (name, value) in headers {
        if value.contains(['\r', '\n']) {
            bail!("{name} can't contain a line break");
        }
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status =
        status.with_context(|| format!("not an HTTP status line: {:?}", line.trim_end()))?;
    let mut rest = Rest::Close;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            bail!("the head of the answer is cut short");
        }
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        let Some((name, value)) = header.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            rest = Rest::Bytes(value.parse().context("content-length is no number")?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            rest = Rest::Chunks(0);
        }
    }
    Ok(Begun {
        status,
        body: Body { reader, rest },
    })
}

/// How much is to come.
enum Rest {
    /// Until the connection ends.
    Close,
    Bytes(u64),
    /// Bytes of the chunk at hand.
    Chunks(u64),
    End,
}

/// The body of an answer.
pub struct Body {
    reader: BufReader<TcpStream>,
    rest: Rest,
}

impl Body {
    /// Length of the next chunk; 0 at the end.
    fn next_chunk(&mut self) -> io::Result<u64> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            // What ends the chunk before.
            line.clear();
            self.reader.read_line(&mut line)?;
        }
        let size = line.split(';').next().unwrap_or("").trim();
        u64::from_str_radix(size, 16)
            .map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, "the answer is cut short"))
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = match &mut self.rest {
            Rest::End | Rest::Bytes(0) => return Ok(0),
            Rest::Close => return self.reader.read(out),
            Rest::Bytes(left) => *left,
            Rest::Chunks(0) => {
                let size = self.next_chunk()?;
                if size == 0 {
                    self.rest = Rest::End;
                    return Ok(0);
                }
                self.rest = Rest::Chunks(size);
                size
            }
            Rest::Chunks(left) => *left,
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(out.len());
        let read = self.reader.read(&mut out[..most])?;
        if read == 0 && most > 0 {
            let error = io::ErrorKind::UnexpectedEof;
            return Err(io::Error::new(error, "the answer is cut short"));
        }
        match &mut self.rest {
            Rest::Bytes(left) | Rest::Chunks(left) => *left -= read as u64,
            Rest::Close | Rest::End => {}
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn ask(answer: &'static str) -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}/x", listener.local_addr().expect("bound"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepts");
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).expect("reads");
            stream.write_all(answer.as_bytes()).expect("writes");
        });
        let answer = get(&url, &[], Duration::from_secs(5));
        server.join().expect("no panic");
        Ok(String::from_utf8_lossy(&answer?.body).into_owned())
    }

    #[test]
    fn a_body_is_read_to_the_end_that_its_head_says() {
        let head = "HTTP/1.1 200 OK\r\n";
        for (rest, expected) in [
            ("\r\nabc", Some("abc")),
            ("content-length: 3\r\n\r\nabcdef", Some("abc")),
            ("content-length: 4\r\n\r\nabc", None),
            (
                "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nb\r\n0123456789a\r\n0\r\n\r\n",
                Some("abc0123456789a"),
            ),
            ("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", None),
            ("transfer-encoding: chunked\r\n\r\n5\r\nabc", None),
        ] {
            let answer: &'static str = format!("{head}{rest}").leak();
            assert_eq!(ask(answer).ok().as_deref(), expected, "{rest:?}");
        }
    }
}
