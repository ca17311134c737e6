//! What one machine does without a network: sealing chunks, and storing bodies durably.
//!
//! Figure and ceiling take turns in short rounds, so that a busy moment of the machine meets both.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use aes::Aes128;
use anyhow::{Context, Result};
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use super::{
    Effort,
    figure::{Figure, median},
};
use crate::{
    disk::{Disk, DiskOptions, Home},
    model::{BodyId, limits::CHUNK_BYTES, object::Padding},
    seal::{
        chunk,
        keys::{UserKeys, UserSecret},
    },
};

/// Sealing chunks on one core, beside AES-128-CTR and two passes of BLAKE3 over as many bytes.
pub(super) async fn seal(effort: Effort) -> Result<Figure> {
    let sealed = tokio::task::spawn_blocking(move || seal_rounds(effort));
    let (ours, bare) = sealed.await.context("measuring `seal`")?;
    Ok(Figure::new("seal", "MiB/s", ours).under("AES-128-CTR and BLAKE3 twice", bare))
}

fn seal_rounds(effort: Effort) -> (f64, f64) {
    let chunks = effort.pick(64, 256);
    let keys = UserKeys::derive(&UserSecret::from_random(Zeroizing::new(rand::random())));
    // What comes out of one round goes into the next: no two plaintexts are the same.
    let mut data = noise(CHUNK_BYTES);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..effort.pick(5, 15) {
        let started = Instant::now();
        for _ in 0..chunks {
            chunk::seal(&keys, &mut data, Padding::Full);
        }
        ours.push(chunks as f64 / started.elapsed().as_secs_f64());
        let started = Instant::now();
        for _ in 0..chunks {
            hash_encrypt_hash(&mut data);
        }
        bare.push(chunks as f64 / started.elapsed().as_secs_f64());
    }
    (median(ours), median(bare))
}

/// Writes so much to a file and removes it again. A virtual machine may have given its free memory back, and
/// then pays several times as much for a page of the file cache that it touches first: whoever writes next
/// would be measured paying for it.
pub(super) fn touch_memory(dir: &Path, bytes: usize) -> Result<()> {
    let path = dir.join("touch");
    let piece = vec![1; CHUNK_BYTES];
    let written = (|| {
        let mut file = File::create(&path)?;
        (0..bytes.div_ceil(CHUNK_BYTES)).try_for_each(|_| file.write_all(&piece))
    })();
    let removed = std::fs::remove_file(&path);
    written.and(removed).with_context(|| format!("writing {}", path.display()))
}

/// The least that sealing a chunk can cost, in the same block cipher mode.
fn hash_encrypt_hash(data: &mut [u8]) {
    let hash = blake3::hash(data);
    let (key, block) = hash.as_bytes().split_at(16);
    let mut cipher = ctr::Ctr128BE::<Aes128>::new_from_slices(key, block).expect("both halves have 16 bytes");
    cipher.apply_keystream(data);
    std::hint::black_box(blake3::hash(data));
}

/// Storing bodies of 1 MiB one after the other, each durable before the next, beside a plain file written
/// and fsynced.
pub(super) async fn disk(dir: &Path, effort: Effort) -> Result<Figure> {
    let home = Home::at(dir.join("disk"));
    let plain = dir.join("plain");
    std::fs::create_dir_all(&plain)?;
    let opening = tokio::task::spawn_blocking(move || {
        home.create()?;
        Disk::open(&home, DiskOptions::default())
    });
    let (disk, _) = opening.await.context("opening a home")??;
    let batch = effort.pick(8, 16);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..effort.pick(5, 15) {
        let bodies = bodies(round, batch);
        let started = Instant::now();
        for (id, body) in &bodies {
            disk.put_body(*id, Shared(Arc::clone(body))).await?;
        }
        ours.push(batch as f64 / started.elapsed().as_secs_f64());
        let folder = plain.clone();
        let writing = tokio::task::spawn_blocking(move || write_plainly(&folder, &bodies));
        let took_s = writing.await.context("writing plain files")??;
        bare.push(batch as f64 / took_s);
    }
    disk.stop().await?;
    Ok(Figure::new("disk", "MiB/s", median(ours)).under("plain files, each fsynced", median(bare)))
}

type Body = (BodyId, Arc<Vec<u8>>);

/// A body's bytes, shared between the disk and the plain files.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn bodies(round: usize, count: usize) -> Vec<Body> {
    let base = noise(CHUNK_BYTES);
    let one = |number: usize| {
        let mut body = base.clone();
        body[..16].copy_from_slice(&((round as u128) << 64 | number as u128).to_le_bytes());
        (chunk::body_id(&body), Arc::new(body))
    };
    (0..count).map(one).collect()
}

fn write_plainly(folder: &Path, bodies: &[Body]) -> Result<f64> {
    let paths: Vec<PathBuf> = bodies.iter().map(|(id, _)| folder.join(id.to_string())).collect();
    let started = Instant::now();
    for (path, (_, body)) in paths.iter().zip(bodies) {
        let mut file = File::create(path)?;
        file.write_all(body)?;
        file.sync_all()?;
    }
    let took_s = started.elapsed().as_secs_f64();
    paths.iter().try_for_each(std::fs::remove_file)?;
    Ok(took_s)
}

/// Bytes that nothing makes smaller, other ones at each call.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&rand::random()).finalize_xof().fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_of_sealing_does_all_that_sealing_cannot_avoid() {
        let before = noise(CHUNK_BYTES);
        let mut after = before.clone();
        hash_encrypt_hash(&mut after);
        let same = before.iter().zip(&after).filter(|(a, b)| a == b).count();
        assert!(same < CHUNK_BYTES / 100, "{same} bytes were left as they were");
    }

    #[test]
    fn no_two_bodies_are_the_same() {
        let ids: std::collections::BTreeSet<BodyId> = bodies(0, 3).iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn plain_files_are_gone_after_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let body: Body = (BodyId([1; 32]), Arc::new(vec![7; 100]));
        assert!(write_plainly(dir.path(), &[body]).unwrap() > 0.0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
