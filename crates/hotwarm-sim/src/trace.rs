//! What happened, as one number, and as text where somebody asked for it.
//!
//! Two runs of one seed are the same exactly if their numbers are.

/// See the module.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    pub count: u64,
    pub verbose: bool,
    /// The last lines, kept for the report of a failure.
    lines: std::collections::VecDeque<String>,
    keep: usize,
}

impl Trace {
    #[must_use]
    pub fn new(verbose: bool, keep: usize) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, count: 0, verbose, lines: std::collections::VecDeque::new(), keep }
    }

    /// Takes a number into the hash (FNV-1a over words, rotated).
    pub const fn number(&mut self, number: u64) {
        self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x0100_0000_01b3);
        self.count += 1;
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(u64::from(crc32c::crc32c(bytes)) | (bytes.len() as u64) << 32);
    }

    /// True if lines are of use to anybody.
    #[must_use]
    pub const fn wants_lines(&self) -> bool {
        self.verbose || self.keep > 0
    }

    pub fn line(&mut self, now_us: u64, text: &str) {
        let line = format!("{:>10.3} {text}", now_us as f64 / 1000.0);
        if self.verbose {
            println!("{line}");
        }
        if self.keep > 0 {
            if self.lines.len() >= self.keep {
                self.lines.pop_front();
            }
            self.lines.push_back(line);
        }
    }

    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    pub fn lines(&self) -> impl Iterator<Item = &String> {
        self.lines.iter()
    }
}
