//! An order of numbers that follows from a seed: which cell holds which byte.
//!
//! A permutation of 0 to n-1, number by number, in memory of a few times the root of n: a Feistel network
//! over pairs (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002), whose round functions are
//! tables out of BLAKE3. It scatters; what it scatters is encrypted already.

/// Rounds: with fewer, neighbours stay near each other in one half.
const ROUNDS: usize = 6;
/// With more than one number in so many, all places are gone through in their own order: the picture's
/// memory is then read once from end to end, and the jumps are in the bytes, of which there are eight times
/// fewer.
const MANY: u64 = 3;
/// Entries of tables that are made at once.
const BATCH_ENTRIES: usize = 256;

/// A number and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Visit {
    pub number: usize,
    pub place: usize,
}

/// The order of `len` numbers.
pub(super) struct Order {
    len: u64,
    /// The first half of a pair is below this.
    left: u32,
    /// 2^64 divided by `left`, rounded up: a product with it divides, which is much quicker.
    reciprocal: u64,
    /// The second half is below this; the product is at least `len`.
    right: u32,
    /// For each round what is added to one half, by the other.
    tables: [Vec<u32>; ROUNDS],
}

impl Order {
    /// The order that follows from this seed. One seed is to be used for one picture only.
    pub(super) fn new(seed: &[u8; 32], len: u64) -> Self {
        let root = len.isqrt();
        let left = (root + u64::from(root * root < len)).max(2);
        let right = len.div_ceil(left).max(1);
        // So is every number of `step`, which makes its division exact.
        assert!(len < 1 << 31, "a picture in memory has fewer cells than 2^31");
        let half = |number: u64| u32::try_from(number).expect("it is below the length, or two");
        let (left, right) = (half(left), half(right));
        let mut stream = blake3::Hasher::new_keyed(seed).finalize_xof();
        let tables = std::array::from_fn(|round| {
            let (entries, below) = if round % 2 == 0 { (right, left) } else { (left, right) };
            table(&mut stream, entries as usize, below)
        });
        Self { len, left, reciprocal: u64::MAX / u64::from(left) + 1, right, tables }
    }

    /// Where the number `at`, below the length, is.
    pub(super) fn place(&self, at: u64) -> u64 {
        let mut at = at;
        loop {
            at = self.step(at);
            // The pairs are a few more than the numbers: go on until it is one of those, which the number
            // that was begun with is itself.
            if at < self.len {
                return at;
            }
        }
    }

    /// Which number has this place, below the length.
    fn number(&self, place: u64) -> u64 {
        let mut at = place;
        loop {
            at = self.step_back(at);
            if at < self.len {
                return at;
            }
        }
    }

    /// The first `count` numbers with their places, each once, in whichever order costs least.
    pub(super) fn each(&self, count: usize, mut visit: impl FnMut(Visit)) {
        if count as u64 > self.len / MANY {
            let visit = |place, number| {
                if number < count {
                    visit(Visit { number, place });
                }
            };
            several(self.len as usize, |place| self.number(place), visit);
        } else {
            several(count, |number| self.place(number), |number, place| visit(Visit { number, place }));
        }
    }

    fn step(&self, at: u64) -> u64 {
        let (mut low, mut high) = self.pair(at);
        for two in self.tables.chunks_exact(2) {
            low = add(low, two[0][high as usize], self.left);
            high = add(high, two[1][low as usize], self.right);
        }
        self.joined(low, high)
    }

    fn step_back(&self, at: u64) -> u64 {
        let (mut low, mut high) = self.pair(at);
        for two in self.tables.chunks_exact(2).rev() {
            high = subtract(high, two[1][low as usize], self.right);
            low = subtract(low, two[0][high as usize], self.left);
        }
        self.joined(low, high)
    }

    fn pair(&self, at: u64) -> (u32, u32) {
        let whole = (u128::from(at) * u128::from(self.reciprocal)) >> 64;
        ((at - whole as u64 * u64::from(self.left)) as u32, whole as u32)
    }

    fn joined(&self, low: u32, high: u32) -> u64 {
        u64::from(high) * u64::from(self.left) + u64::from(low)
    }
}

/// Maps the numbers below `count`. Several are mapped before the first is used, so that the memory behind
/// them is waited for together.
fn several(count: usize, map: impl Fn(u64) -> u64, mut visit: impl FnMut(usize, usize)) {
    const TOGETHER: usize = 64;
    let mut mapped = [0; TOGETHER];
    let mut first = 0;
    while first < count {
        let mapped = &mut mapped[..(count - first).min(TOGETHER)];
        for (at, to) in (first as u64..).zip(&mut *mapped) {
            *to = map(at) as usize;
        }
        mapped.iter().zip(first..).for_each(|(to, at)| visit(at, *to));
        first += mapped.len();
    }
}

/// The sum of two numbers below `modulus`, modulo that.
fn add(one: u32, other: u32, modulus: u32) -> u32 {
    let sum = one + other;
    if sum >= modulus { sum - modulus } else { sum }
}

/// Their difference, likewise.
fn subtract(one: u32, other: u32, modulus: u32) -> u32 {
    if one >= other { one - other } else { one + modulus - other }
}

/// So many numbers below a bound, each from four bytes of the stream.
fn table(stream: &mut blake3::OutputReader, entries: usize, below: u32) -> Vec<u32> {
    let mut table = Vec::with_capacity(entries);
    let mut bytes = [0; 4 * BATCH_ENTRIES];
    while table.len() < entries {
        let here = (entries - table.len()).min(BATCH_ENTRIES);
        stream.fill(&mut bytes[..4 * here]);
        let numbers = bytes[..4 * here].chunks_exact(4).map(|four| {
            let number = u32::from_le_bytes(four.try_into().expect("a slice of four"));
            ((u64::from(number) * u64::from(below)) >> 32) as u32
        });
        table.extend(numbers);
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(seed: u8, len: u64) -> Vec<u64> {
        let order = Order::new(&[seed; 32], len);
        (0..len).map(|at| order.place(at)).collect()
    }

    proptest! {
        #[test]
        fn each_number_has_a_place_of_its_own(seed in any::<u8>(), len in 1u64..3000) {
            let mut found = places(seed, len);
            found.sort_unstable();
            prop_assert!(found.into_iter().eq(0..len));
        }
    }

    proptest! {
        #[test]
        fn each_is_visited_once_at_its_place(seed in any::<u8>(), len in 1u64..3000, part in 0.0f64..=1.0) {
            let order = Order::new(&[seed; 32], len);
            let count = (len as f64 * part) as usize;
            let mut found = Vec::new();
            order.each(count, |visit| found.push(visit));
            found.sort_unstable();
            let place = |number| order.place(number as u64) as usize;
            let expected = (0..count).map(|number| Visit { number, place: place(number) });
            prop_assert!(found.into_iter().eq(expected));
        }
    }

    #[test]
    fn another_seed_is_another_order_and_neighbours_part() {
        let (one, other) = (places(1, 10_000), places(2, 10_000));
        let same = one.iter().zip(&other).filter(|(one, other)| one == other).count();
        assert!(same < 20, "{same} of 10,000 are in the same place");
        let near = one.windows(2).filter(|two| two[0].abs_diff(two[1]) < 100).count();
        // By chance one pair in fifty is that near.
        assert!((100..400).contains(&near), "{near} neighbours stay near");
        // The first numbers are all over the whole.
        let early = one.iter().take(1000).filter(|place| **place < 5000).count();
        assert!((400..600).contains(&early), "{early}");
    }

    /// The order is part of a format: it never changes.
    #[test]
    fn the_order_is_what_it_was() {
        let order = Order::new(&std::array::from_fn(|i| i as u8), 1_000_003);
        let found: Vec<u64> = (0..6).map(|at| order.place(at)).collect();
        assert_eq!(found, WRITTEN);
    }

    const WRITTEN: [u64; 6] = [976_042, 418_521, 411_660, 651_813, 256_750, 693_356];
}
