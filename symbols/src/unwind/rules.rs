//! The distinct rules of an object, numbered in the order in which they are first met.

use std::collections::HashMap;

use super::layout::UnwindRule;

/// Slots of the small table in front of the map.
const RECENT_SLOTS: usize = 256;

/// Rule → number. Most rows repeat one of a few dozen rules, so a small direct-mapped table answers
/// nearly always; behind it is a map whose hash no input can aim at.
#[derive(Debug)]
pub(super) struct RuleNumbers {
    rules: Vec<UnwindRule>,
    numbers: HashMap<UnwindRule, u32>,
    recent: Vec<(UnwindRule, u32)>,
}

impl RuleNumbers {
    /// Numbers with rule 0 = NONE.
    pub(super) fn new() -> Self {
        let none = (UnwindRule::NONE, 0);
        Self {
            rules: vec![UnwindRule::NONE],
            numbers: HashMap::from([none]),
            recent: vec![none; RECENT_SLOTS],
        }
    }

    /// The number of a rule.
    pub(super) fn number(&mut self, rule: UnwindRule) -> u32 {
        let slot = slot_of(&rule);
        if let Some((recent_rule, number)) = self.recent.get(slot)
            && *recent_rule == rule
        {
            return *number;
        }
        let next = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(rule).or_insert(next);
        if number == next {
            self.rules.push(rule);
        }
        if let Some(recent) = self.recent.get_mut(slot) {
            *recent = (rule, number);
        }
        number
    }

    /// The rules, by number.
    pub(super) fn rules(&self) -> &[UnwindRule] {
        &self.rules
    }
}

fn slot_of(rule: &UnwindRule) -> usize {
    let kinds = u32::from_le_bytes([rule.cfa, rule.cfa_register, rule.frame_pointer, rule.return_address]);
    let offsets = (rule.cfa_offset as u32) ^ (rule.cfa_addend as u32).rotate_left(12);
    let saved = u32::from(rule.fp_offset as u16) | u32::from(rule.rbx_offset as u16) << 16;
    let mixed = u64::from(kinds ^ saved.rotate_left(7)) << 32 | u64::from(offsets);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % RECENT_SLOTS
}
