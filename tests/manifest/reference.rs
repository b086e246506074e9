//! A second implementation of the root, from the text of `docs/reference/formats.md` and nothing
//! else.

/// The root of a disk that holds `disk`.
pub fn root(disk: &[u8], block_size: usize) -> [u8; 32] {
    let mut level: Vec<Option<[u8; 32]>> = disk
        .chunks(block_size)
        .map(|block| match block.iter().all(|byte| *byte == 0) {
            true => None,
            false => Some(*blake3::hash(block).as_bytes()),
        })
        .collect();
    while !level.is_empty() {
        level = level.chunks(256).map(node).collect();
        if level.len() == 1 {
            break;
        }
    }
    let mut input = Vec::new();
    input.extend((disk.len() as u64).to_le_bytes());
    input.extend((block_size as u64).to_le_bytes());
    if let Some(Some(top)) = level.first() {
        input.extend(top);
    }
    blake3::derive_key("diskdelta 2025-11-22 manifest root, version 1", &input)
}

fn node(children: &[Option<[u8; 32]>]) -> Option<[u8; 32]> {
    let mut input = vec![0; 32];
    for (slot, child) in children.iter().enumerate() {
        if let Some(hash) = child {
            input[slot / 8] |= 1 << (slot % 8);
            input.extend(hash);
        }
    }
    let context = "diskdelta 2025-11-22 manifest tree node, version 1";
    (input.len() > 32).then(|| blake3::derive_key(context, &input))
}
