//! The driver's first packet. It offers the login Srp256 before Srp, with the data of one of them
//! only. Firebird 3 as it comes knows Srp; when it does not encrypt, it does not ask for the rest.

const PLUGIN_NAME: u8 = 8;
const PLUGIN_LIST: u8 = 10;
/// A protocol that the driver offers: five numbers of four bytes.
const PROTOCOL_BYTES: usize = 20;
/// What stands before the database's name.
const HEAD_BYTES: usize = 16;

/// The packet with Srp offered first, and how many bytes of `packet` it was; `None` until it is
/// complete.
pub fn srp_first(packet: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (_, user_at) = counted(packet, HEAD_BYTES)?;
    let protocols = number(packet, user_at)?;
    let (user, protocols_at) = counted(packet, user_at + 4)?;
    let length = protocols_at.checked_add(protocols.checked_mul(PROTOCOL_BYTES)?)?;
    let rest = packet.get(protocols_at..length)?;
    let user = reordered(user)?;
    let mut changed = packet.get(..user_at + 4)?.to_vec();
    changed.extend(u32::try_from(user.len()).ok()?.to_be_bytes());
    changed.extend(&user);
    changed.resize(changed.len().next_multiple_of(4), 0);
    changed.extend(rest);
    Some((changed, length))
}

/// Items of a tag, a length and so many bytes.
fn reordered(mut items: &[u8]) -> Option<Vec<u8>> {
    let mut changed = Vec::with_capacity(items.len());
    while let Some((tag, rest)) = items.split_first() {
        let (length, rest) = rest.split_first()?;
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        let value: &[u8] = match *tag {
            PLUGIN_NAME => b"Srp",
            PLUGIN_LIST => b"Srp,Srp256",
            _ => value,
        };
        changed.extend([*tag, u8::try_from(value.len()).ok()?]);
        changed.extend(value);
        items = rest;
    }
    Some(changed)
}

fn number(packet: &[u8], at: usize) -> Option<usize> {
    let bytes = packet.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok()
}

/// Bytes behind their number, and where what follows them begins.
fn counted(packet: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = number(packet, at)?;
    let bytes = packet.get(at + 4..(at + 4).checked_add(length)?)?;
    Some((bytes, at + 4 + length.next_multiple_of(4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(user: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEAD_BYTES];
        for bytes in [&b"almacen"[..], user] {
            if packet.len() > HEAD_BYTES {
                packet.extend(1_u32.to_be_bytes());
            }
            packet.extend((bytes.len() as u32).to_be_bytes());
            packet.extend(bytes);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet.extend([7; PROTOCOL_BYTES]);
        packet
    }

    #[test]
    fn plugins_change_places_and_all_else_stays() {
        let given = packet(b"\x09\x02ME\x08\x06Srp256\x0a\x0aSrp256,Srp\x07\x03\x00ab");
        let wanted = packet(b"\x09\x02ME\x08\x03Srp\x0a\x0aSrp,Srp256\x07\x03\x00ab");
        assert_eq!(srp_first(&given), Some((wanted, given.len())));
        for length in 0..given.len() {
            assert_eq!(srp_first(&given[..length]), None, "{length} bytes");
        }
    }
}
