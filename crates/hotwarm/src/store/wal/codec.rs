//! Stand-in for `hotwarm_core::wal` until it lands: records to bytes and back.

use hotwarm_core::wal::Record;

pub(super) const HEADER: usize = 16;

pub(super) fn header(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"hwwal\0\0\x01");
    out.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn append(records: &[Record], out: &mut Vec<u8>) {
    for record in records {
        let body = postcard::to_stdvec(record).expect("serializes");
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c_append(crc32c::crc32c(&[1, 1]), &body).to_le_bytes());
        out.extend_from_slice(&[1, 1]);
        out.extend_from_slice(&body);
    }
}

#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) records: Vec<Record>,
    pub(super) tail: Option<(u64, usize)>,
    pub(super) cut: bool,
}

impl Replay {
    pub(super) fn segment(&mut self, number: u64, bytes: &[u8]) {
        let mut expected = Vec::new();
        header(number, &mut expected);
        if self.cut || bytes.iter().all(|b| *b == 0) {
            return;
        }
        if !bytes.starts_with(&expected) {
            self.cut = true;
            return;
        }
        let mut at = HEADER;
        while let Some(head) = bytes.get(at..at + 10) {
            if head == [0; 10] {
                break;
            }
            let len = u32::from_le_bytes(head[..4].try_into().unwrap_or_default()) as usize;
            let crc = u32::from_le_bytes(head[4..8].try_into().unwrap_or_default());
            let Some(body) = bytes.get(at + 8..at + 10 + len).filter(|b| crc32c::crc32c(b) == crc).map(|b| &b[2..]) else {
                self.cut = true;
                break;
            };
            self.records.extend(postcard::from_bytes::<Record>(body).ok());
            at += 10 + len;
        }
        self.tail = Some((number, at));
    }
}
