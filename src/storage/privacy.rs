//! Who may use a new file.

/// The most that others may do with a new file; its owner may always read and write it.
///
/// What the system takes away from new files by default, as by a umask, is taken away in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Privacy {
    /// Permission bits for reading and writing.
    mode: u32,
    /// The group that the group's bits are meant for, where it matters.
    group: Option<u32>,
}

#[cfg_attr(windows, allow(dead_code))]
impl Privacy {
    /// The owner alone reads and writes it.
    pub const PRIVATE: Privacy = Privacy {
        mode: 0,
        group: None,
    };

    /// What the system grants by default.
    pub const USUAL: Privacy = Privacy {
        mode: 0o666,
        group: None,
    };

    /// No more than a file of `group` with this `mode` grants.
    pub(super) fn of(mode: u32, group: u32) -> Self {
        Privacy {
            mode: mode & 0o666,
            group: Some(group),
        }
    }

    /// What both grant.
    #[must_use]
    pub fn and(self, other: Privacy) -> Privacy {
        match (self.group, other.group) {
            (Some(mine), Some(theirs)) if mine != theirs => Privacy {
                mode: self.for_all() & other.for_all(),
                group: None,
            },
            (mine, theirs) => Privacy {
                mode: self.mode & other.mode,
                group: mine.or(theirs),
            },
        }
    }

    /// Only what group and all others have in common, whatever the group is.
    #[must_use]
    pub(super) fn common(self) -> Privacy {
        Privacy {
            mode: self.for_all() & 0o066,
            group: None,
        }
    }

    /// The mode of a new file of an unknown group.
    pub(super) fn for_all(self) -> u32 {
        let common = (self.mode >> 3) & self.mode & 0o6;
        match self.group {
            None => 0o600 | self.mode,
            Some(_) => 0o600 | (common << 3) | common,
        }
    }

    /// The mode of a new file of `group`.
    pub(super) fn for_group(self, group: u32) -> u32 {
        match self.group {
            Some(own) if own != group => self.for_all(),
            _ => 0o600 | self.mode,
        }
    }

    /// Whether a file of this mode and group grants no more.
    pub(super) fn admits(self, mode: u32, group: u32) -> bool {
        mode & 0o7777 & !self.for_group(group) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_grants_no_more_than_its_model_to_a_group_of_its_own() {
        let model = Privacy::of(0o100_640, 7);
        assert_eq!((model.for_all(), model.for_group(7)), (0o600, 0o640));
        assert_eq!(model.for_group(8), 0o600);
        assert_eq!(Privacy::of(0o644, 7).for_all(), 0o644);
        assert_eq!(Privacy::of(0o604, 7).for_all(), 0o600);
        assert_eq!(Privacy::of(0o4777, 7).for_group(7), 0o666);
        assert_eq!(Privacy::PRIVATE.for_group(7), 0o600);
        assert_eq!(Privacy::USUAL.for_all(), 0o666);
    }

    #[test]
    fn what_two_models_grant_is_what_both_do() {
        let both = Privacy::of(0o660, 7).and(Privacy::of(0o644, 7));
        assert_eq!(both.for_group(7), 0o640);
        let other = Privacy::of(0o660, 7).and(Privacy::of(0o660, 8));
        assert_eq!(other.for_group(7), 0o600);
        assert_eq!(
            Privacy::USUAL.and(Privacy::of(0o640, 7)).for_group(7),
            0o640
        );
        assert_eq!(Privacy::USUAL.and(Privacy::PRIVATE), Privacy::PRIVATE);
        assert_eq!(Privacy::of(0o646, 7).common().for_group(7), 0o644);
    }

    #[test]
    fn a_wider_mode_is_not_admitted() {
        let model = Privacy::of(0o640, 7);
        for (mode, group, admitted) in [
            (0o600, 7, true),
            (0o640, 7, true),
            (0o640, 8, false),
            (0o660, 7, false),
            (0o604, 7, false),
            (0o4600, 7, false),
        ] {
            assert_eq!(model.admits(mode, group), admitted, "{mode:o} {group}");
        }
    }
}
