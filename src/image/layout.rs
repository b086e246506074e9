//! How an image stores its guest bytes.

/// How an image stores its guest bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "camelCase")
)]
#[non_exhaustive]
pub enum Layout {
    /// One after the other, as a raw image does; also where the format has no kinds.
    #[default]
    Flat,
    /// All at their place, with metadata before or behind them.
    Fixed,
    /// In blocks that are allocated when they are first written.
    Dynamic,
    /// As `Dynamic`, over a parent image.
    Differencing,
    /// VMDK: in grains of one file.
    MonolithicSparse,
    /// VMDK: in grains of several files, which a descriptor names.
    TwoGbMaxExtentSparse,
    /// VMDK: in compressed grains, made to be read once from the front.
    StreamOptimized,
}

impl Layout {
    /// Its name, as formats and `qemu-img` spell it.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Flat => "flat",
            Layout::Fixed => "fixed",
            Layout::Dynamic => "dynamic",
            Layout::Differencing => "differencing",
            Layout::MonolithicSparse => "monolithicSparse",
            Layout::TwoGbMaxExtentSparse => "twoGbMaxExtentSparse",
            Layout::StreamOptimized => "streamOptimized",
        }
    }
}
