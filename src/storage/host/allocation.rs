//! How zeros are stored.

/// What becomes of the space of bytes that are to read as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Allocation {
    /// As the file was when it was opened: one that had holes, or was empty, gets more of them; a
    /// thick one stays thick, also where it grows.
    #[default]
    Keep,
    /// Zeros become holes.
    Sparse,
    /// Zeros take space, so that overwriting them later cannot fail for want of it.
    Full,
}
