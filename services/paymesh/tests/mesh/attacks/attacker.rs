//! Somebody who speaks HTTP/2 as it is written and not as it is meant: frames by hand, over a connection of its own.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread::JoinHandle,
    time::Duration,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The types of frames (RFC 9113, section 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

/// How long an attack waits for a node that does not read.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(10);

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![high, middle, low, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A string of HPACK (RFC 7541, section 5.2), not Huffman-coded.
fn string(text: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    match u8::try_from(text.len()).ok().filter(|length| *length < 0x7f) {
        Some(length) => coded.push(length),
        None => {
            coded.push(0x7f);
            let mut rest = text.len() - 0x7f;
            while rest >= 0x80 {
                coded.push(u8::try_from(rest % 0x80).unwrap() | 0x80);
                rest /= 0x80;
            }
            coded.push(u8::try_from(rest).unwrap());
        }
    }
    coded.extend(text);
    coded
}

/// A header that is not to be remembered.
pub(crate) fn header(name: &str, value: &str) -> Vec<u8> {
    [vec![0], string(name.as_bytes()), string(value.as_bytes())].concat()
}

/// A header that is to be remembered: from then on, one byte (`0xbe`) stands for it.
pub(crate) fn remembered(name: &str, value: &str) -> Vec<u8> {
    [vec![0x40], string(name.as_bytes()), string(value.as_bytes())].concat()
}

/// The block of headers of a call.
pub(crate) fn call(path: &str) -> Vec<u8> {
    let (post, http, path_of, authority) = (0x83, 0x86, 0x04, 0x01);
    [
        vec![post, http, path_of],
        string(path.as_bytes()),
        vec![authority],
        string(b"node"),
        header("te", "trailers"),
        header("content-type", "application/grpc"),
    ]
    .concat()
}

/// How a connection ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// The error code of the last GOAWAY, and the words after it. What is on its way when a connection is broken off may be lost.
    pub(crate) goaway: Option<(u32, String)>,
}

/// A connection that takes everything that comes, as fast as it comes.
pub(crate) struct Attacker {
    stream: TcpStream,
    reader: JoinHandle<Ended>,
}

impl Attacker {
    /// Begins HTTP/2, as any client does. None: the node does not take the connection.
    pub(crate) fn begin(port: u16) -> Option<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_write_timeout(Some(WRITE_WAIT_MAX)).unwrap();
        let reading = stream.try_clone().ok()?;
        let reader = std::thread::spawn(|| read(reading));
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, 1, 0, &[])].concat()).ok()?;
        Some(Self { stream, reader })
    }

    /// False: the node has closed the connection.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Whether the node has closed the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.reader.is_finished()
    }

    /// Waits until the node closes the connection, no longer than so long.
    pub(crate) fn ended(self, within: Duration) -> Option<Ended> {
        let until = std::time::Instant::now() + within;
        while !self.reader.is_finished() {
            if std::time::Instant::now() > until {
                let _ = self.stream.shutdown(Shutdown::Both);
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(self.reader.join().unwrap())
    }

    /// Leaves.
    pub(crate) fn leave(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Reads frames until there are no more.
fn read(mut stream: TcpStream) -> Ended {
    let mut ended = Ended::default();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut payload).is_err() {
            break;
        }
        if head[3] == GOAWAY && payload.len() >= 8 {
            let code = u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]);
            ended.goaway = Some((code, String::from_utf8_lossy(&payload[8..]).into_owned()));
        }
    }
    ended
}
