//! What other readers of VHD and VHDX see in a file.
#![allow(dead_code, reason = "no test needs all of them")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use wxtla::images::{vhd::VhdImage, vhdx::VhdxImage};
use wxtla::{
    ByteSourceHandle, FileDataSource, RelatedSourceRequest, RelatedSourceResolver, SourceHints,
    SourceIdentity,
};

/// All guest bytes as the crate wxtla reads them, or what it has against the file. Parents are
/// looked for in the file's own directory.
pub fn wxtla(path: &Path) -> Result<Vec<u8>, String> {
    let directory = InDirectory(path.parent().unwrap().to_owned());
    let name = path.file_name().unwrap().to_str().unwrap();
    let identity = SourceIdentity::from_relative_path(name).map_err(|e| e.to_string())?;
    let hints = SourceHints::new()
        .with_resolver(&directory)
        .with_source_identity(&identity);
    let source: ByteSourceHandle = Arc::new(FileDataSource::open(path).map_err(|e| e.to_string())?);
    let image: ByteSourceHandle = match path.extension().and_then(|it| it.to_str()) {
        Some("vhd") => {
            Arc::new(VhdImage::open_with_hints(source, hints).map_err(|e| e.to_string())?)
        }
        _ => Arc::new(VhdxImage::open_with_hints(source, hints).map_err(|e| e.to_string())?),
    };
    let len = image.size().map_err(|e| e.to_string())?;
    image
        .read_bytes_at(0, usize::try_from(len).unwrap())
        .map_err(|e| e.to_string())
}

struct InDirectory(std::path::PathBuf);

impl RelatedSourceResolver for InDirectory {
    fn resolve(&self, request: &RelatedSourceRequest) -> wxtla::Result<Option<ByteSourceHandle>> {
        let name = request.path.file_name().unwrap_or_default();
        match FileDataSource::open(self.0.join(name)) {
            Ok(file) => Ok(Some(Arc::new(file))),
            Err(_) => Ok(None),
        }
    }
}

/// All guest bytes as libvhdi reads them through its parents, the file itself first; `None`,
/// loudly, where its binding is not there.
///
/// `DISKDELTA_PYTHON` names an interpreter that has the package libvhdi-python.
pub fn libvhdi(chain: &[&Path]) -> Option<Vec<u8>> {
    let named = std::env::var_os("DISKDELTA_PYTHON");
    let python = named.clone().unwrap_or_else(|| "python3".into());
    let there = Command::new(&python).args(["-c", "import pyvhdi"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        assert!(named.is_none(), "{python:?} has no libvhdi-python");
        eprintln!("LEFT OUT: libvhdi-python is not installed (DISKDELTA_PYTHON)");
        return None;
    }
    let out = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new(&python)
        .args(["-c", SCRIPT])
        .arg(out.path())
        .args(chain)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "libvhdi: {said}");
    Some(std::fs::read(out.path()).unwrap())
}

const SCRIPT: &str = "
import sys, pyvhdi
files = []
for path in sys.argv[2:]:
    file = pyvhdi.file()
    file.open(path)
    files.append(file)
for child, parent in zip(files, files[1:]):
    child.set_parent(parent)
with open(sys.argv[1], 'wb') as out:
    left = files[0].get_media_size()
    while left:
        piece = files[0].read_buffer(min(left, 1 << 20))
        assert piece, 'short read'
        out.write(piece)
        left -= len(piece)
";
