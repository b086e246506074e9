//! Fuzz input read as a program: numbers taken off the front, zeros once it has run out.

/// What is left of an input.
#[derive(Debug, Clone)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn u8(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let raw = match n {
            0..=256 => u64::from(self.u8()),
            257..=0x1_0000 => u64::from(self.u16()),
            _ => self.u64(),
        };
        raw % n
    }

    /// One in `n`; never once the input has run out.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == n - 1
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Up to `len` bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number that fields do not like: at borders, near what stands there, near `anchors`.
    pub fn nasty(&mut self, now: u64, anchors: &[u64]) -> u64 {
        match self.u8() % 18 {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => u64::from(u32::MAX),
            4 => 1 << (self.u8() % 64),
            5 => now.wrapping_add(1),
            6 => now.wrapping_sub(1),
            7 => now.wrapping_add(512),
            8 => now.wrapping_sub(512),
            9 => now.wrapping_mul(2),
            10 => self.u64(),
            11 => u64::from(self.u32()),
            12 => u64::from(self.u16()),
            13 => now ^ 1 << (self.u8() % 64),
            14 => now.wrapping_add(u64::from(self.u8()) << 20),
            15 => now.wrapping_sub(u64::from(self.u8()) << 12),
            _ if anchors.is_empty() => u64::from(self.u8()),
            16 => self.pick(anchors),
            _ => self
                .pick(anchors)
                .wrapping_add_signed(i64::from(self.u8() as i8)),
        }
    }
}

/// The next number of a fixed sequence, for work that needs chance but no input.
pub fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}
