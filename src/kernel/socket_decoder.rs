//! A record of the ring buffer `socket_events` → [`SocketEvent`].
//!
//! Fields are read one by one from where BTF says they are, as in `sample_decoder.rs`: a DATA record is as
//! long as what it captured. A record of any other length than its own fields say is refused.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv6Addr};

use super::sample_decoder::{bytes_at, u16_at, u32_at, u64_at};
use super::socket_abi::{
    sf_data_flag, sf_direction, sf_ending, sf_endpoint, sf_role, sf_socket_amended, sf_socket_data,
    sf_socket_ended, sf_socket_event, sf_socket_event_type, sf_socket_new_code, sf_socket_opened,
    sf_socket_shut_down, sf_socket_stream,
};
use crate::model::RequestKey;
use crate::model::socket::{
    Actor, ConnectionId, Direction, Ending, Endpoint, Fragment, Minted, Moved, Opened, Role, SocketEvent,
    SocketEventKind,
};

/// Decodes one `struct sf_socket_event` and what follows it, `None` if it is none.
pub(super) fn decode(record: &[u8]) -> Option<SocketEvent> {
    let kind = match sf_socket_event_type(u32_at(record, offset_of!(sf_socket_event, r#type))?) {
        sf_socket_event_type::SF_SOCKET_OPENED => SocketEventKind::Opened(opened(record)?),
        sf_socket_event_type::SF_SOCKET_DATA => SocketEventKind::Data(fragment(record)?),
        sf_socket_event_type::SF_SOCKET_AMENDED => amended(record)?,
        sf_socket_event_type::SF_SOCKET_SHUT_DOWN => SocketEventKind::ShutDown(shut_down(record)?),
        sf_socket_event_type::SF_SOCKET_LISTENS => SocketEventKind::Listens,
        sf_socket_event_type::SF_SOCKET_STREAM => stream(record)?,
        sf_socket_event_type::SF_SOCKET_ENDED => ended(record)?,
        sf_socket_event_type::SF_SOCKET_NEW_CODE => new_code(record)?,
        sf_socket_event_type::SF_SOCKET_IO_URING => SocketEventKind::IoUring,
        _ => return None,
    };
    let connection = u64_at(record, offset_of!(sf_socket_event, connection))?;
    let actor = Actor {
        pid: u32_at(record, offset_of!(sf_socket_event, pid))?,
        tid: u32_at(record, offset_of!(sf_socket_event, tid))?,
        goroutine: u64_at(record, offset_of!(sf_socket_event, goroutine))?,
    };
    let time_ns = u64_at(record, offset_of!(sf_socket_event, time_ns))?;
    let is_of_none = matches!(kind, SocketEventKind::NewCode { .. } | SocketEventKind::IoUring);
    let event = SocketEvent { connection: ConnectionId(connection), time_ns, actor, kind };
    ((connection == 0) == is_of_none).then_some(event)
}

fn direction(code: u32) -> Option<Direction> {
    match sf_direction(code) {
        sf_direction::SF_IN => Some(Direction::In),
        sf_direction::SF_OUT => Some(Direction::Out),
        _ => None,
    }
}

fn endpoint(record: &[u8], offset: usize) -> Option<Endpoint> {
    let address = bytes_at::<16>(record, offset + offset_of!(sf_endpoint, address))?;
    let port = u16_at(record, offset + offset_of!(sf_endpoint, port))?;
    let family = u16_at(record, offset + offset_of!(sf_endpoint, family))?;
    match i32::from(family) {
        libc::AF_UNIX => Some(Endpoint::Unix { inode: u64_at(&address, 0)? }),
        libc::AF_INET | libc::AF_INET6 => {
            let address = Ipv6Addr::from(address);
            let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
            Some(Endpoint::Internet { address, port })
        }
        _ => None,
    }
}

fn opened(record: &[u8]) -> Option<Opened> {
    if record.len() != size_of::<sf_socket_opened>() {
        return None;
    }
    let role = match sf_role(u32_at(record, offset_of!(sf_socket_opened, role))?) {
        sf_role::SF_ROLE_UNKNOWN => Role::Unknown,
        sf_role::SF_ROLE_ACCEPTED => Role::Accepted,
        sf_role::SF_ROLE_CONNECTED => Role::Connected,
        _ => return None,
    };
    Some(Opened {
        role,
        local: endpoint(record, offset_of!(sf_socket_opened, local))?,
        peer: endpoint(record, offset_of!(sf_socket_opened, peer))?,
        network_namespace: u32_at(record, offset_of!(sf_socket_opened, network_namespace))?,
        opened_by: RequestKey::of(u64_at(record, offset_of!(sf_socket_opened, opened_by))?),
        opener: Actor {
            pid: u32_at(record, offset_of!(sf_socket_opened, opener_pid))?,
            tid: u32_at(record, offset_of!(sf_socket_opened, opener_tid))?,
            goroutine: u64_at(record, offset_of!(sf_socket_opened, opener_goroutine))?,
        },
    })
}

fn fragment(record: &[u8]) -> Option<Fragment> {
    let head_bytes = u32_at(record, offset_of!(sf_socket_data, head_bytes))? as usize;
    let tail_bytes = u32_at(record, offset_of!(sf_socket_data, tail_bytes))? as usize;
    let length = u64_at(record, offset_of!(sf_socket_data, length))?;
    let bytes = record.get(offset_of!(sf_socket_data, bytes)..)?;
    let captured = head_bytes.checked_add(tail_bytes)?;
    if bytes.len() != captured || captured as u64 > length {
        return None;
    }
    let (head, tail) = bytes.split_at_checked(head_bytes)?;
    let flags = u32_at(record, offset_of!(sf_socket_data, flags))?;
    let has = |flag: sf_data_flag| flags & flag.0 != 0;
    let minted = match RequestKey::of(u64_at(record, offset_of!(sf_socket_data, minted))?) {
        Some(key) if has(sf_data_flag::SF_DATA_MINTED) => Some(Minted {
            key,
            trace_id: bytes_at(record, offset_of!(sf_socket_data, trace_id))?,
            span_id: bytes_at(record, offset_of!(sf_socket_data, span_id))?,
            received_parent: if has(sf_data_flag::SF_DATA_RECEIVED) {
                Some(bytes_at(record, offset_of!(sf_socket_data, parent_span_id))?)
            } else {
                None
            },
            is_sent: has(sf_data_flag::SF_DATA_SENT),
        }),
        _ => None,
    };
    Some(Fragment {
        direction: direction(u32_at(record, offset_of!(sf_socket_data, direction))?)?,
        is_decrypted: has(sf_data_flag::SF_DATA_DECRYPTED),
        position: u64_at(record, offset_of!(sf_socket_data, position))?,
        sequence: has(sf_data_flag::SF_DATA_SEQUENCE)
            .then(|| u32_at(record, offset_of!(sf_socket_data, sequence)))
            .flatten(),
        length,
        head: head.to_vec(),
        tail: tail.to_vec(),
        minted,
        within: RequestKey::of(u64_at(record, offset_of!(sf_socket_data, within))?),
        by_event_loop: has(sf_data_flag::SF_DATA_EVENT_LOOP),
        from_pool: has(sf_data_flag::SF_DATA_POOLED),
    })
}

fn amended(record: &[u8]) -> Option<SocketEventKind> {
    if record.len() != size_of::<sf_socket_amended>() {
        return None;
    }
    let flags = u32_at(record, offset_of!(sf_socket_amended, flags))?;
    Some(SocketEventKind::Amended {
        is_decrypted: flags & sf_data_flag::SF_DATA_DECRYPTED.0 != 0,
        position: u64_at(record, offset_of!(sf_socket_amended, position))?,
        length: u64_at(record, offset_of!(sf_socket_amended, length))?,
    })
}

fn stream(record: &[u8]) -> Option<SocketEventKind> {
    if record.len() != size_of::<sf_socket_stream>() {
        return None;
    }
    Some(SocketEventKind::Stream {
        stream_id: u32_at(record, offset_of!(sf_socket_stream, stream))?,
        direction: direction(u32_at(record, offset_of!(sf_socket_stream, direction))?)?,
        request: RequestKey::of(u64_at(record, offset_of!(sf_socket_stream, request))?),
    })
}

fn shut_down(record: &[u8]) -> Option<Direction> {
    if record.len() != size_of::<sf_socket_shut_down>() {
        return None;
    }
    direction(u32_at(record, offset_of!(sf_socket_shut_down, direction))?)
}

fn new_code(record: &[u8]) -> Option<SocketEventKind> {
    if record.len() != size_of::<sf_socket_new_code>() {
        return None;
    }
    let is_program = u32_at(record, offset_of!(sf_socket_new_code, is_program))? != 0;
    Some(SocketEventKind::NewCode { is_program })
}

fn ended(record: &[u8]) -> Option<SocketEventKind> {
    if record.len() != size_of::<sf_socket_ended>() {
        return None;
    }
    let error = u32_at(record, offset_of!(sf_socket_ended, error))?.cast_signed();
    let ending = match sf_ending(u32_at(record, offset_of!(sf_socket_ended, ending))?) {
        sf_ending::SF_ENDING_CLOSED => Ending::Closed,
        sf_ending::SF_ENDING_RESET => Ending::Reset,
        sf_ending::SF_ENDING_TIMED_OUT => Ending::TimedOut,
        sf_ending::SF_ENDING_NOT_CONNECTED => Ending::NotConnected(error),
        sf_ending::SF_ENDING_FAILED => Ending::Failed(error),
        _ => return None,
    };
    let moved = offset_of!(sf_socket_ended, moved);
    let moved = Moved {
        is_decrypted: u32_at(record, offset_of!(sf_socket_ended, is_decrypted))? != 0,
        in_bytes: u64_at(record, moved)?,
        out_bytes: u64_at(record, moved + size_of::<u64>())?,
    };
    Some(SocketEventKind::Ended(ending, Some(moved)))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    struct Record(Vec<u8>);

    impl Record {
        fn new(event_type: sf_socket_event_type, bytes: usize) -> Self {
            let mut record = Self(vec![0; bytes]);
            record.put(offset_of!(sf_socket_event, r#type), &event_type.0.to_ne_bytes());
            record.put(offset_of!(sf_socket_event, time_ns), &55u64.to_ne_bytes());
            record.put(offset_of!(sf_socket_event, connection), &0x77u64.to_ne_bytes());
            record.put(offset_of!(sf_socket_event, pid), &12u32.to_ne_bytes());
            record.put(offset_of!(sf_socket_event, tid), &13u32.to_ne_bytes());
            record.put(offset_of!(sf_socket_event, goroutine), &14u64.to_ne_bytes());
            record
        }

        fn put(&mut self, offset: usize, value: &[u8]) {
            self.0[offset..offset + value.len()].copy_from_slice(value);
        }

        fn event(&self) -> Option<SocketEvent> {
            decode(&self.0)
        }
    }

    fn data(head: &[u8], tail: &[u8], length: u64) -> Record {
        let mut record = Record::new(sf_socket_event_type::SF_SOCKET_DATA, offset_of!(sf_socket_data, bytes));
        record.put(offset_of!(sf_socket_data, position), &100u64.to_ne_bytes());
        record.put(offset_of!(sf_socket_data, length), &length.to_ne_bytes());
        record.put(offset_of!(sf_socket_data, head_bytes), &(head.len() as u32).to_ne_bytes());
        record.put(offset_of!(sf_socket_data, tail_bytes), &(tail.len() as u32).to_ne_bytes());
        record.put(offset_of!(sf_socket_data, direction), &1u32.to_ne_bytes());
        record.0.extend_from_slice(head);
        record.0.extend_from_slice(tail);
        record
    }

    #[test]
    fn data_is_split_into_head_and_tail() {
        let event = data(b"GET / ", b"\r\n", 1000).event().expect("a sound record");
        assert_eq!((event.connection, event.time_ns), (ConnectionId(0x77), 55));
        assert_eq!(event.actor, Actor { pid: 12, tid: 13, goroutine: 14 });
        let SocketEventKind::Data(fragment) = event.kind else { panic!("{event:?}") };
        assert_eq!((fragment.direction, fragment.position, fragment.length), (Direction::Out, 100, 1000));
        assert_eq!((fragment.head.as_slice(), fragment.tail.as_slice()), (&b"GET / "[..], &b"\r\n"[..]));
        assert_eq!((fragment.minted, fragment.within, fragment.is_decrypted), (None, None, false));
    }

    #[test]
    fn a_minted_request_needs_its_flag_and_its_key() {
        let mut record = data(b"GET / ", b"", 6);
        record.put(offset_of!(sf_socket_data, minted), &9u64.to_ne_bytes());
        record.put(offset_of!(sf_socket_data, trace_id), &[1; 16]);
        record.put(offset_of!(sf_socket_data, span_id), &[2; 8]);
        record.put(offset_of!(sf_socket_data, within), &8u64.to_ne_bytes());
        let minted = |record: &Record| match record.event().expect("sound").kind {
            SocketEventKind::Data(fragment) => (fragment.minted, fragment.within),
            other => panic!("{other:?}"),
        };
        assert_eq!(minted(&record), (None, Some(RequestKey(8))));
        let flags = sf_data_flag::SF_DATA_MINTED.0 | sf_data_flag::SF_DATA_DECRYPTED.0;
        record.put(offset_of!(sf_socket_data, flags), &flags.to_ne_bytes());
        let expected = Minted {
            key: RequestKey(9),
            trace_id: [1; 16],
            span_id: [2; 8],
            received_parent: None,
            is_sent: false,
        };
        assert_eq!(minted(&record), (Some(expected), Some(RequestKey(8))));
        record.put(offset_of!(sf_socket_data, minted), &0u64.to_ne_bytes());
        assert_eq!(minted(&record).0, None);
    }

    #[test]
    fn data_that_claims_other_lengths_than_it_has_is_refused() {
        let sound = data(b"abc", b"de", 5);
        assert!(sound.event().is_some());
        for length in 0..sound.0.len() {
            assert!(decode(&sound.0[..length]).is_none(), "cut to {length} bytes");
        }
        assert!(data(b"abc", b"de", 4).event().is_none(), "more captured than moved");
        let mut huge = data(b"abc", b"de", 5);
        huge.put(offset_of!(sf_socket_data, head_bytes), &u32::MAX.to_ne_bytes());
        assert!(huge.event().is_none());
        let mut sideways = data(b"abc", b"de", 5);
        sideways.put(offset_of!(sf_socket_data, direction), &2u32.to_ne_bytes());
        assert!(sideways.event().is_none());
    }

    #[test]
    fn endpoints_are_ipv4_when_mapped_and_ipv6_or_inodes_otherwise() {
        let mut record = Record::new(sf_socket_event_type::SF_SOCKET_OPENED, size_of::<sf_socket_opened>());
        let mut put = |at: usize, address: [u8; 16], port: u16, family: i32| {
            record.put(at + offset_of!(sf_endpoint, address), &address);
            record.put(at + offset_of!(sf_endpoint, port), &port.to_ne_bytes());
            record.put(at + offset_of!(sf_endpoint, family), &(family as u16).to_ne_bytes());
        };
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        put(offset_of!(sf_socket_opened, local), mapped, 80, libc::AF_INET6);
        put(offset_of!(sf_socket_opened, peer), Ipv6Addr::LOCALHOST.octets(), 81, libc::AF_INET6);
        record.put(offset_of!(sf_socket_opened, role), &1u32.to_ne_bytes());
        record.put(offset_of!(sf_socket_opened, opened_by), &3u64.to_ne_bytes());
        let opened = |record: &Record| match record.event().map(|event| event.kind) {
            Some(SocketEventKind::Opened(opened)) => Some(opened),
            Some(other) => panic!("{other:?}"),
            None => None,
        };
        let found = opened(&record).expect("sound");
        assert_eq!(found.local, Endpoint::Internet { address: Ipv4Addr::LOCALHOST.into(), port: 80 });
        assert_eq!(found.peer, Endpoint::Internet { address: Ipv6Addr::LOCALHOST.into(), port: 81 });
        assert_eq!((found.role, found.opened_by), (Role::Accepted, Some(RequestKey(3))));

        let mut inode = [0; 16];
        inode[..8].copy_from_slice(&4711u64.to_ne_bytes());
        let at = offset_of!(sf_socket_opened, local);
        record.put(at + offset_of!(sf_endpoint, address), &inode);
        record.put(at + offset_of!(sf_endpoint, family), &(libc::AF_UNIX as u16).to_ne_bytes());
        assert_eq!(opened(&record).expect("sound").local, Endpoint::Unix { inode: 4711 });
        record.put(at + offset_of!(sf_endpoint, family), &99u16.to_ne_bytes());
        assert_eq!(opened(&record), None, "a family that nobody follows");
    }

    #[test]
    fn endings_shut_downs_and_amendments_carry_their_numbers() {
        let mut record = Record::new(sf_socket_event_type::SF_SOCKET_ENDED, size_of::<sf_socket_ended>());
        record.put(offset_of!(sf_socket_ended, ending), &sf_ending::SF_ENDING_NOT_CONNECTED.0.to_ne_bytes());
        record.put(offset_of!(sf_socket_ended, error), &111i32.to_ne_bytes());
        record.put(offset_of!(sf_socket_ended, moved), &7u64.to_ne_bytes());
        record.put(offset_of!(sf_socket_ended, moved) + 8, &9u64.to_ne_bytes());
        let moved = Moved { is_decrypted: false, in_bytes: 7, out_bytes: 9 };
        let ended = SocketEventKind::Ended(Ending::NotConnected(111), Some(moved));
        assert_eq!(record.event().expect("sound").kind, ended);
        record.put(offset_of!(sf_socket_ended, ending), &77u32.to_ne_bytes());
        assert!(record.event().is_none());

        let record = Record::new(sf_socket_event_type::SF_SOCKET_SHUT_DOWN, size_of::<sf_socket_shut_down>());
        assert_eq!(record.event().expect("sound").kind, SocketEventKind::ShutDown(Direction::In));

        let mut record = Record::new(sf_socket_event_type::SF_SOCKET_AMENDED, size_of::<sf_socket_amended>());
        record.put(offset_of!(sf_socket_amended, position), &5u64.to_ne_bytes());
        record.put(offset_of!(sf_socket_amended, length), &6u64.to_ne_bytes());
        let expected = SocketEventKind::Amended { is_decrypted: false, position: 5, length: 6 };
        assert_eq!(record.event().expect("sound").kind, expected);
    }

    #[test]
    fn events_of_no_connection_or_of_another_type_are_refused() {
        let mut record = Record::new(sf_socket_event_type::SF_SOCKET_ENDED, size_of::<sf_socket_ended>());
        assert!(record.event().is_some());
        record.put(offset_of!(sf_socket_event, connection), &0u64.to_ne_bytes());
        assert!(record.event().is_none());
        let mut record =
            Record::new(sf_socket_event_type::SF_SOCKET_NEW_CODE, size_of::<sf_socket_new_code>());
        assert!(record.event().is_none(), "that is of no connection");
        record.put(offset_of!(sf_socket_event, connection), &0u64.to_ne_bytes());
        assert_eq!(record.event().expect("sound").kind, SocketEventKind::NewCode { is_program: false });
        for code in [0, 6, u32::MAX] {
            assert!(Record::new(sf_socket_event_type(code), 4096).event().is_none());
        }
        assert!(decode(&[]).is_none());
    }
}
