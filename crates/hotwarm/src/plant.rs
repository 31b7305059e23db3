//! Bugs planted on purpose in the router, to prove that its tests would catch them: those of S20, which no simulated router can break.
//!
//! The core has its own (`hotwarm_core::plant`). Test builds have them, and with the feature `plant` the program has them too; in any other
//! build, and so in each that is shipped, [`is`] is the constant `false` and the compiler leaves nothing of it. A process has at most one,
//! the one that `HOTWARM_PLANT` names. The main path: a test below runs others of this binary once more with each bug, and they must fail.

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    S20AnyRequest,
    S20AnySize,
    S20AfterRelease,
}

impl Bug {
    pub const ALL: &[Self] = &[Self::S20AnyRequest, Self::S20AnySize, Self::S20AfterRelease];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::S20AnyRequest => "s20-any-request",
            Self::S20AnySize => "s20-any-size",
            Self::S20AfterRelease => "s20-after-release",
        }
    }

    /// In words.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::S20AnyRequest => "any request is taken for safe to repeat",
            Self::S20AnySize => "a body is kept and repeated whatever its size",
            Self::S20AfterRelease => "a request is repeated though bytes of its reply were released",
        }
    }
}

#[cfg(any(test, feature = "plant"))]
const CHOOSES: &str = "HOTWARM_PLANT";

/// Whether this process has that bug.
///
/// # Panics
/// When the environment names a bug that there is not.
#[cfg(any(test, feature = "plant"))]
#[must_use]
pub fn is(bug: Bug) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var(CHOOSES).ok()?;
        let bug = Bug::ALL.iter().copied().find(|bug| bug.name() == name);
        Some(bug.unwrap_or_else(|| panic!("{CHOOSES} names no bug: {name}")))
    });
    *chosen == Some(bug)
}

/// Whether this process has that bug: never.
#[cfg(not(any(test, feature = "plant")))]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The test that catches it, and how it says so.
    const fn catcher(bug: Bug) -> (&'static str, &'static str) {
        match bug {
            Bug::S20AnyRequest => ("a_post_is_sent_once_and_its_fate_told", "right: (502, \"HW0810\", 1)"),
            Bug::S20AnySize => ("a_body_too_large_to_keep_is_not_repeated", "right: (502, 1)"),
            Bug::S20AfterRelease => ("a_reply_is_cut_in_the_middle_when_its_epoch_ends", "client.ends().await"),
        }
    }

    /// Runs one test in a process of its own: whether it holds, and what it says.
    fn run(test: &str, bug: Option<Bug>) -> (bool, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test]).env("RUST_BACKTRACE", "0").env_remove(CHOOSES).envs(bug.map(|bug| (CHOOSES, bug.name())));
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), said)
    }

    /// Caught means: by the test that is named, by its own assertion, and without the bug that test holds.
    #[test]
    fn every_bug_planted_in_the_router_is_caught() {
        for bug in Bug::ALL.iter().copied() {
            let (name, says) = catcher(bug);
            let test = format!("router::tests::failover::{name}");
            let (holds, said) = run(&test, None);
            assert!(holds && said.contains("1 passed"), "fails without a bug: {said}");
            let (holds, said) = run(&test, Some(bug));
            let failed = said.contains(&format!("test {test} ... FAILED"));
            assert!(!holds && failed && said.contains(says), "{} is not caught: {said}", bug.name());
            println!("{:<18} {:<62} {name}", bug.name(), bug.what());
        }
    }
}
