//! In which order the sides run.

/// A side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Base,
    New,
}

impl Which {
    /// The name of its folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::New => "new",
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) which: Which,
    /// Its number on its side, from 1; none if it does not count.
    pub(super) number: Option<u32>,
    /// Its place among those that count, from 0.
    pub(super) position: u32,
}

/// A B, `warm_up` times; then A B B A A B B A ….
pub(super) fn turns(warm_up: u32, runs: u32) -> impl Iterator<Item = Turn> {
    let before = (0..warm_up).flat_map(|_| [Which::Base, Which::New]).map(|which| Turn {
        which,
        number: None,
        position: 0,
    });
    let counted = (0..runs).flat_map(|pair| {
        let order = if pair % 2 == 0 { [Which::Base, Which::New] } else { [Which::New, Which::Base] };
        [(order[0], 0), (order[1], 1)].map(|(which, second)| Turn {
            which,
            number: Some(pair + 1),
            position: 2 * pair + second,
        })
    });
    before.chain(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_take_turns_so_that_what_drifts_falls_on_both_alike() {
        let letters: String =
            turns(1, 4).map(|turn| if turn.which == Which::Base { 'A' } else { 'B' }).collect();
        assert_eq!(letters, "ABABBAABBA");
        let counted: Vec<Turn> = turns(1, 4).filter(|turn| turn.number.is_some()).collect();
        assert!(counted.iter().enumerate().all(|(index, turn)| turn.position as usize == index));
        let places =
            |which| counted.iter().filter(|turn| turn.which == which).map(|turn| turn.position).sum::<u32>();
        assert_eq!(places(Which::Base), places(Which::New), "a trend weighs on both alike");
    }
}
