//! A Path in one column: each value after its length, four bytes, big-endian.

/// The column's content.
pub(super) fn join_path(values: &[Vec<u8>]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(values.iter().map(|value| value.len() + 4).sum());
    for value in values {
        // Longer than a message can be; cut rather than misread.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        joined.extend_from_slice(&length.to_be_bytes());
        joined.extend(value.iter().take(length as usize));
    }
    joined
}

/// The values again; `None` if a length does not fit.
pub(super) fn split_path(mut joined: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut values = Vec::new();
    while !joined.is_empty() {
        let (length, rest) = joined.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        values.push(value.to_vec());
        joined = rest;
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_back_and_a_damaged_one_is_refused() {
        let table = [vec![], vec![vec![]], vec![b"<sip:a;lr>".to_vec(), vec![], vec![0; 300]]];
        for values in table {
            assert_eq!(split_path(&join_path(&values)), Some(values));
        }
        for damaged in [&[0][..], &[0, 0, 0, 2, 1], &[0xff, 0xff, 0xff, 0xff, 1]] {
            assert_eq!(split_path(damaged), None, "{damaged:?}");
        }
    }
}
