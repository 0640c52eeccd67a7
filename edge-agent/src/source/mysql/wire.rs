//! The MySQL protocol's packets over a line: whole packets are borrowed from one buffer, so that a
//! row costs no allocation and no copy.

use std::io;
use std::ops::Range;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::fault::Fault;

/// A connection to a server, encrypted or not.
pub trait Line: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Line for T {}

/// Bytes read at once, and what the buffer shrinks to after a value that needed more.
const BUFFER_BYTES: usize = 128 << 10;
const HEADER_BYTES: usize = 4;
/// A payload of this length goes on in the next packet.
const PART_BYTES_MAX: usize = 0xff_ff_ff;
/// The largest row or answer taken: no dataset has such, so it bounds the memory.
const PACKET_BYTES_MAX: usize = 64 << 20;

pub struct Wire {
    line: Box<dyn Line>,
    buffer: Vec<u8>,
    /// What was read and not taken yet.
    unread: Range<usize>,
    packet: Packet,
    sequence: u8,
}

/// Where the packet last received is.
enum Packet {
    Buffered(Range<usize>),
    /// Put together from several parts.
    Joined(Vec<u8>),
}

impl Wire {
    pub fn new(line: Box<dyn Line>) -> Self {
        Self { line, buffer: vec![0; BUFFER_BYTES], unread: 0..0, packet: Packet::Buffered(0..0), sequence: 0 }
    }

    /// The line, to be encrypted. Nothing may have arrived yet that was sent in the clear: whoever
    /// sits on the line could have put it there.
    pub fn upgrade(self) -> Result<(Box<dyn Line>, u8), Fault> {
        if self.unread.is_empty() { Ok((self.line, self.sequence)) } else { Err(Fault::protocol("data ahead of TLS")) }
    }

    /// The same conversation over an encrypted line.
    pub fn resume(line: Box<dyn Line>, sequence: u8) -> Self {
        Self { sequence, ..Self::new(line) }
    }

    /// Sends a command: the first packet of a new exchange.
    pub async fn command(&mut self, payload: &[u8]) -> Result<(), Fault> {
        self.sequence = 0;
        self.send(payload).await
    }

    /// Sends an answer within an exchange.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), Fault> {
        if payload.len() >= PART_BYTES_MAX {
            return Err(Fault::protocol("a statement of 16 MB or more"));
        }
        let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
        frame.push(self.sequence);
        frame.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.line.write_all(&frame).await?;
        self.line.flush().await?;
        Ok(())
    }

    /// Receives the next packet, which [`Wire::payload`] then shows.
    #[inline]
    pub async fn receive(&mut self) -> Result<(), Fault> {
        if !self.take_buffered() {
            self.receive_slowly().await?;
        }
        Ok(())
    }

    /// The packet last received.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        match &self.packet {
            Packet::Buffered(range) => &self.buffer[range.clone()],
            Packet::Joined(bytes) => bytes,
        }
    }

    /// Takes the next packet if the whole of it is here and it is not one of several parts.
    #[inline]
    fn take_buffered(&mut self) -> bool {
        match self.part() {
            Some(part) if part.len() < PART_BYTES_MAX => {
                self.take(&part);
                self.packet = Packet::Buffered(part);
                true
            }
            _ => false,
        }
    }

    async fn receive_slowly(&mut self) -> Result<(), Fault> {
        let mut joined: Vec<u8> = Vec::new();
        loop {
            let Some(part) = self.part() else {
                self.fill().await?;
                continue;
            };
            self.take(&part);
            let is_last = part.len() < PART_BYTES_MAX;
            if is_last && joined.is_empty() {
                self.packet = Packet::Buffered(part);
                return Ok(());
            }
            joined.extend_from_slice(&self.buffer[part]);
            if joined.len() > PACKET_BYTES_MAX {
                return Err(Fault::protocol("a row of more than 64 MB"));
            }
            if is_last {
                self.packet = Packet::Joined(joined);
                return Ok(());
            }
        }
    }

    /// The payload of the next part, if the whole of it is here.
    #[inline]
    fn part(&self) -> Option<Range<usize>> {
        let unread = &self.buffer[self.unread.clone()];
        let end = HEADER_BYTES + payload_bytes(unread)?;
        (unread.len() >= end).then_some(self.unread.start + HEADER_BYTES..self.unread.start + end)
    }

    #[inline]
    fn take(&mut self, part: &Range<usize>) {
        self.sequence = self.buffer[part.start - 1].wrapping_add(1);
        self.unread.start = part.end;
    }

    /// Reads more, at least a byte.
    async fn fill(&mut self) -> Result<(), Fault> {
        let needed = HEADER_BYTES + payload_bytes(&self.buffer[self.unread.clone()]).unwrap_or(0);
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.start + needed > self.buffer.len() || self.unread.end == self.buffer.len() {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        } else if self.buffer.len() > BUFFER_BYTES && self.unread.end.max(needed) <= BUFFER_BYTES {
            self.buffer.truncate(BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        }
        let read = self.line.read(&mut self.buffer[self.unread.end..]).await?;
        if read == 0 {
            return Err(Fault::Io(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        self.unread.end += read;
        Ok(())
    }
}

/// The payload's length by the header at the start of `bytes`.
#[inline]
fn payload_bytes(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    Some(u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize)
}

/// Reads the fields of a packet; `None` when it is cut off.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    #[inline]
    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A length-encoded integer.
    #[inline]
    pub fn number(&mut self) -> Option<u64> {
        match self.u8()? {
            0xfc => self.u16().map(u64::from),
            0xfd => self.array().map(|[low, middle, high]| u64::from(u32::from_le_bytes([low, middle, high, 0]))),
            0xfe => self.array().map(u64::from_le_bytes),
            0xfb | 0xff => None,
            small => Some(small.into()),
        }
    }

    /// Bytes after their length-encoded length.
    #[inline]
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.bytes(usize::try_from(length).ok()?)
    }

    /// Bytes up to a zero, or to the end where there is none.
    pub fn until_zero(&mut self) -> &'a [u8] {
        let length = self.0.iter().position(|byte| *byte == 0);
        let (bytes, rest) = self.0.split_at(length.unwrap_or(self.0.len()));
        self.0 = rest.get(1..).unwrap_or_default();
        bytes
    }
}

/// Appends a length-encoded integer.
pub fn put_number(packet: &mut Vec<u8>, number: usize) {
    match number {
        0..=0xfa => packet.push(number as u8),
        0xfb..=0xffff => {
            packet.push(0xfc);
            packet.extend_from_slice(&(number as u16).to_le_bytes());
        }
        _ => {
            packet.push(0xfe);
            packet.extend_from_slice(&(number as u64).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    /// The packets as a server sends them: parts of 16 MB, the last one shorter.
    fn frames(payload: &[u8]) -> Vec<u8> {
        let mut frames = Vec::new();
        let whole = payload.len() / PART_BYTES_MAX;
        for part in 0..=whole {
            let bytes = &payload[part * PART_BYTES_MAX..payload.len().min((part + 1) * PART_BYTES_MAX)];
            frames.extend_from_slice(&(bytes.len() as u32).to_le_bytes()[..3]);
            frames.push(part as u8);
            frames.extend_from_slice(bytes);
        }
        frames
    }

    #[test]
    fn packets_arrive_whole_however_the_line_cuts_them() {
        let sizes = [1, 3, BUFFER_BYTES - 4, BUFFER_BYTES, 7, 1 << 20, PART_BYTES_MAX - 1, 5, PART_BYTES_MAX, 9];
        let sizes = sizes.into_iter().chain([PART_BYTES_MAX + 11, 2]).collect::<Vec<usize>>();
        let payload = |size: usize| (0..size).map(|at| (at * 31 + size) as u8).collect::<Vec<u8>>();
        for cut in [1 << 20, 4093] {
            block_on(async {
                let (near, mut far) = tokio::io::duplex(cut);
                let mut wire = Wire::new(Box::new(near));
                let sending = async {
                    for size in &sizes {
                        far.write_all(&frames(&payload(*size))).await.unwrap();
                    }
                    drop(far);
                };
                let receiving = async {
                    for size in &sizes {
                        wire.receive().await.unwrap();
                        assert!(wire.payload() == payload(*size), "{size} bytes");
                    }
                    assert!(wire.buffer.len() <= BUFFER_BYTES, "a large packet leaves no large buffer");
                    assert!(matches!(wire.receive().await, Err(Fault::Io(_))), "the end is an error");
                };
                futures::join!(sending, receiving);
            });
        }
    }

    #[test]
    fn a_packet_beyond_the_bound_is_refused() {
        block_on(async {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let mut wire = Wire::new(Box::new(near));
            let part = frames(&vec![0; PART_BYTES_MAX]);
            let endless = async { while far.write_all(&part[..PART_BYTES_MAX + HEADER_BYTES]).await.is_ok() {} };
            let refused = async {
                assert!(matches!(wire.receive().await, Err(Fault::Protocol(_))));
                drop(wire);
            };
            futures::join!(endless, refused);
        });
    }

    #[test]
    fn data_ahead_of_tls_is_not_taken() {
        block_on(async {
            let (near, mut far) = tokio::io::duplex(1 << 10);
            let mut wire = Wire::new(Box::new(near));
            far.write_all(&[frames(b"greeting"), frames(b"smuggled")].concat()).await.unwrap();
            wire.receive().await.unwrap();
            assert!(matches!(wire.upgrade(), Err(Fault::Protocol(_))));
        });
    }
}
