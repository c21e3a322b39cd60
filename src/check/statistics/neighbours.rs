//! Are values that follow each other more alike than chance has it?
//!
//! The tests of this folder take runs for independent. Stretches of a server's time need not be: what it is asked
//! changes slowly. Then the spread between stretches says too little of how a mean may be off, and what is called
//! certain is not.

/// What is more alike than this cannot be put right by a factor.
const MOST_CORRELATED: f64 = 0.9;
/// Orders that are tried, drawn by chance.
const ORDERS: u64 = 999;
/// Of so few values all orders are tried: 5040.
const MOST_TO_TRY_ALL: usize = 7;

/// The chance of values that follow each other being so alike, if their order meant nothing: by comparison with
/// other orders of the same values, which holds whatever their distribution is and however the series depend on
/// each other. Each of `series` has a value for each moment; all count the same. 1 if there is nothing to tell.
#[must_use]
pub fn chance_of_likeness(series: &[Vec<f64>]) -> f64 {
    let moments = series.first().map_or(0, Vec::len);
    if moments < 3 || series.iter().any(|values| values.len() != moments) {
        return 1.0;
    }
    // What each pair of moments would add as neighbours.
    let mut products = vec![0.0; moments * moments];
    for values in series {
        let mean = values.iter().sum::<f64>() / moments as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        if squares.is_nan() || squares <= 0.0 {
            continue;
        }
        let rows = products.chunks_exact_mut(moments).zip(values);
        for (row, one) in rows {
            for (product, other) in row.iter_mut().zip(values) {
                *product += (one - mean) * (other - mean) / squares;
            }
        }
    }
    let product = |one: usize, other: usize| products.get(one * moments + other).copied().unwrap_or(0.0);
    // Von Neumann's ratio, but for what no order changes: the ends have one neighbour each, so that half of their
    // squares stands for the other. Of all orders the rising one is then the most alike.
    let likeness = |order: &[usize]| -> f64 {
        let pairs = order.iter().zip(order.iter().skip(1));
        let ends = order.first().into_iter().chain(order.last());
        pairs.map(|(&one, &other)| product(one, other)).sum::<f64>()
            + ends.map(|&end| product(end, end) / 2.0).sum::<f64>()
    };
    let mut order: Vec<usize> = (0..moments).collect();
    let seen = likeness(&order);
    // The same order from its other end is as alike, up to rounding.
    let as_alike = seen - 1e-9 * (1.0 + seen.abs());
    if moments <= MOST_TO_TRY_ALL {
        let (mut reached, mut tried) = (1_u64, 1_u64);
        while next_order(&mut order) {
            reached += u64::from(likeness(&order) >= as_alike);
            tried += 1;
        }
        return reached as f64 / tried as f64;
    }
    let mut state = 0x5eed_u64;
    let mut reached = 1;
    for _ in 0..ORDERS {
        for at in (1..moments).rev() {
            order.swap(at, below(&mut state, at as u64 + 1) as usize);
        }
        reached += u64::from(likeness(&order) >= as_alike);
    }
    reached as f64 / (ORDERS + 1) as f64
}

/// Makes it the next one by the alphabet; false after the last.
fn next_order(order: &mut [usize]) -> bool {
    let Some(at) = order.windows(2).rposition(|pair| pair.first() < pair.last()) else { return false };
    let Some((head, tail)) = order.split_at_mut_checked(at + 1) else { return false };
    let Some(last) = head.last_mut() else { return false };
    if let Some(greater) = tail.iter_mut().rfind(|value| **value > *last) {
        std::mem::swap(last, greater);
    }
    tail.reverse();
    true
}

/// The correlation of values with those that follow them, over all sides, about nought if their order means nothing;
/// none of values that do not vary.
#[must_use]
pub fn correlation(sides: &[Vec<f64>]) -> Option<f64> {
    let (mut products, mut squares) = (0.0, 0.0);
    for values in sides {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        squares += values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let pairs = values.iter().zip(values.iter().skip(1));
        products += pairs.map(|(one, next)| (one - mean) * (next - mean)).sum::<f64>();
    }
    // What is below the mean once is above it elsewhere, which pulls the correlation down by one part of each side.
    let moments = sides.iter().map(Vec::len).sum::<usize>() as f64 / sides.len() as f64;
    (squares > 0.0 && squares.is_finite()).then(|| products / squares + 1.0 / moments)
}

/// What a [`correlation`], as a mean of many, is in truth: what is correlated strongly seems to be less so over a few
/// moments (to first order by three parts of as many; Kendall, "Note on bias in the estimation of autocorrelation",
/// 1954).
#[must_use]
pub fn unbiased(correlation: f64, moments: usize) -> f64 {
    correlation / (1.0 - 3.0 / moments.max(5) as f64)
}

/// How many times as uncertain a mean is, as a variance, if values are correlated so with their neighbours, and with
/// others as follows from that (an autoregression of order 1).
#[must_use]
pub fn variance_inflation(correlation: f64) -> f64 {
    let correlation = correlation.clamp(0.0, MOST_CORRELATED);
    (1.0 + correlation) / (1.0 - correlation)
}

/// A number below `limit` (`SplitMix64`): the same ones each time, so that an answer is the same each time.
fn below(state: &mut u64, limit: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % limit.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(series: u64, moments: u64) -> Vec<f64> {
        let mut state = series;
        (0..moments).map(|_| below(&mut state, 1_000_000) as f64).collect()
    }

    #[test]
    fn what_drifts_is_seen_and_what_alternates_or_is_random_is_not() {
        let rising: Vec<f64> = (0..10).map(f64::from).collect();
        assert!(chance_of_likeness(std::slice::from_ref(&rising)) < 0.005);
        // Of few values all orders are counted: none is more alike than these two of 120, and of 5040.
        for (moments, orders) in [(5, 120.0), (7, 5040.0)] {
            let few: Vec<f64> = rising[..moments].to_vec();
            assert_eq!(chance_of_likeness(&[few]), 2.0 / orders);
        }
        let alternating: Vec<f64> = (0..10).map(|at| f64::from(at % 2)).collect();
        assert!(chance_of_likeness(&[alternating]) > 0.9);
        // Among many that mean nothing a few that drift together are still seen.
        let mut many: Vec<Vec<f64>> = (0..8).map(|series| noise(series, 10)).collect();
        many.extend([rising.clone(), rising.clone(), rising]);
        assert!(chance_of_likeness(&many) < 0.05);
    }

    #[test]
    fn random_series_are_taken_for_alike_as_seldom_as_is_said() {
        let told = (0..400_u64)
            .filter(|number| {
                let moments = if number % 2 == 0 { 10 } else { 6 };
                let series: Vec<Vec<f64>> = (0..5).map(|one| noise(number * 31 + one, moments)).collect();
                chance_of_likeness(&series) <= 0.1
            })
            .count();
        // 10 % of 400, and three standard errors.
        assert!((22..=58).contains(&told), "{told} of 400");
    }

    #[test]
    fn a_mean_of_what_is_alike_is_as_uncertain_as_is_said() {
        // An autoregression whose mean is taken over and over: its spread, beside what independence would have.
        let (moments, means, memory) = (40, 3000_u64, 0.5);
        let mut state = 1;
        let mut uniform = || below(&mut state, 1 << 32) as f64 / (1_u64 << 32) as f64 - 0.5;
        let (mut of_means, mut told) = (0.0, 0.0);
        let mut value = 0.0;
        for _ in 0..means {
            let values: Vec<f64> = (0..moments)
                .map(|_| {
                    value = memory * value + uniform();
                    value
                })
                .collect();
            let mean = values.iter().sum::<f64>() / f64::from(moments);
            of_means += mean * mean / means as f64;
            told += correlation(&[values.clone(), values]).unwrap() / means as f64;
        }
        let independent = 1.0 / 12.0 / (1.0 - memory * memory) / f64::from(moments);
        let truth = of_means / independent;
        assert!((told - memory).abs() < 0.08 && (unbiased(told, 40) - memory).abs() < 0.02, "{told}");
        assert!((variance_inflation(memory) / truth - 1.0).abs() < 0.1, "{truth}");
        assert_eq!((variance_inflation(-0.3), variance_inflation(0.0)), (1.0, 1.0));
        assert!(correlation(&[vec![1.0; 5], vec![2.0; 5]]).is_none());
        assert!(correlation(&[vec![], vec![]]).is_none() && correlation(&[]).is_none());
    }

    #[test]
    fn of_nothing_nothing_is_told() {
        for series in
            [vec![], vec![vec![]], vec![vec![1.0, 2.0]], vec![vec![3.0; 8]], vec![vec![1.0; 4], vec![1.0; 5]]]
        {
            assert_eq!(chance_of_likeness(&series), 1.0, "{series:?}");
        }
    }
}
