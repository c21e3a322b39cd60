use proptest::prelude::*;

use super::*;

const MAP: u32 = 77;
const LOOK_UP: i32 = 100;
const UPDATE: i32 = 200;

fn calls() -> WritingCalls {
    WritingCalls(HashSet::from([UPDATE, 300]))
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let ([o0, o1], [i0, i1, i2, i3]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    [code, from << 4 | to, o0, o1, i0, i1, i2, i3]
}

/// `rN = map`
fn load(to: u8, map: u32) -> Vec<[u8; 8]> {
    vec![instruction(0x18, to, 1, 0, map.cast_signed()), [0; 8]]
}

fn call(helper: i32) -> Vec<[u8; 8]> {
    vec![instruction(0x85, 0, 0, 0, helper)]
}

fn copy(to: u8, from: u8) -> Vec<[u8; 8]> {
    vec![instruction(0xbf, to, from, 0, 0)]
}

fn exit() -> Vec<[u8; 8]> {
    vec![instruction(0x95, 0, 0, 0, 0)]
}

fn writes_it(parts: &[Vec<[u8; 8]>]) -> bool {
    updates(&parts.concat().concat(), MAP, &calls())
}

#[test]
fn who_updates_or_deletes_writes_and_who_looks_up_reads() {
    assert!(writes_it(&[load(1, MAP), call(UPDATE), exit()]));
    assert!(writes_it(&[load(1, MAP), call(300), exit()]));
    assert!(!writes_it(&[load(1, MAP), call(LOOK_UP), exit()]));
    // Another map is updated by who only looks into this one.
    assert!(!writes_it(&[load(1, MAP), call(LOOK_UP), load(1, MAP + 1), call(UPDATE), exit()]));
    // What was in a register before a call is not there after it, but where calls leave it.
    assert!(!writes_it(&[load(1, MAP), call(LOOK_UP), call(UPDATE), exit()]));
    assert!(writes_it(&[load(6, MAP), copy(1, 6), call(LOOK_UP), copy(1, 6), call(UPDATE), exit()]));
    let number = vec![instruction(0xb7, 1, 0, 0, 5)];
    assert!(!writes_it(&[load(1, MAP), number, call(UPDATE), exit()]));
}

#[test]
fn it_is_followed_along_jumps_back_and_forth() {
    // 0 load r1; 2 if r2 == 0 goto 5; 3 r1 = r3; 4 goto 3 before; 5 call
    let branch = vec![instruction(0x15, 2, 0, 2, 0)];
    let back = vec![instruction(0x05, 0, 0, -2, 0)];
    assert!(writes_it(&[load(1, MAP), branch.clone(), copy(1, 3), back.clone(), call(UPDATE), exit()]));
    let unconditional = vec![instruction(0x05, 0, 0, 1, 0)];
    assert!(!writes_it(&[load(1, MAP), unconditional, call(UPDATE), exit()]));
    // The copy that it has reached comes by a jump back: 0 goto 3; 1 call; 2 exit; 3 load; 5 goto 1.
    let forth = vec![instruction(0x06, 0, 0, 0, 2)];
    let back = vec![instruction(0x05, 0, 0, -5, 0)];
    assert!(writes_it(&[forth, call(UPDATE), exit(), load(1, MAP), back]));
}

#[test]
fn what_cannot_be_followed_counts_as_a_writer() {
    let stored = vec![instruction(0x7b, 10, 1, -8, 0)];
    assert!(writes_it(&[load(1, MAP), stored, exit()]));
    let own_function = vec![instruction(0x85, 0, 1, 0, 3)];
    assert!(writes_it(&[load(2, MAP), own_function, exit()]));
    assert!(writes_it(&[exit()]), "it uses the map, and nothing is seen of it");
    assert!(writes_it(&[]));
}

#[test]
fn calls_are_found_by_the_kernels_own_names() {
    let text = "ffffffff81000000 T __bpf_call_base\nffffffff81000020 T bpf_map_lookup_elem\n\
                ffffffff81000064 t htab_lru_map_update_elem\nffffffff80ffff00 t htab_lru_map_delete_elem\n\
                ffffffffc0000000 t my_map_update_elem\t[module]\n";
    let calls = WritingCalls::read(text.as_bytes()).expect("it has the base");
    assert_eq!(calls.0, HashSet::from([0x64, -0x100]));
    // As somebody sees it who may not.
    assert!(WritingCalls::read(&b"0000000000000000 T __bpf_call_base\n"[..]).is_none());
    assert!(WritingCalls::read(&b""[..]).is_none());
}

proptest! {
    #[test]
    fn any_instructions_are_looked_through(bytes in proptest::collection::vec(any::<u8>(), 0..400), map in any::<u32>()) {
        let _ = updates(&bytes, map, &calls());
    }
}
