//! One client's load, as a process of its own: its pictures are made and its connections stand before it says
//! that it is ready; then it waits for the word, and puts or gets them.
//!
//! It says what it has done on standard output, one line of JSON, and lives until its standard input ends, so
//! that whoever started it can look what it cost. When its input ends early, it ends: nobody wants it.

use std::{io::Write, sync::Arc};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, Stdin};

use crate::{
    api::{Connect, Get, Put, Source, Vault},
    cli::{context::Context, demo::pictures::Picture},
    model::limits::TRANSFERS_MAX,
};

/// What it says when it waits for the word.
pub(super) const READY: &str = "ready";
/// The word.
pub(super) const GO: &[u8] = b"g";

/// Which way the pictures go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// To the nodes.
    Put,
    /// From the nodes, where the same load has put them.
    Get,
}

/// What a client does. Loads with different seeds have no byte in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Load {
    /// Which way.
    pub(super) way: Way,
    /// Of its pictures.
    pub(super) seed: u64,
    /// Pictures.
    pub(super) count: u64,
    /// Both edges of each, in pixels.
    pub(super) edge_px: u32,
    /// Copies of each; of no meaning for [`Way::Get`].
    pub(super) copies: u8,
}

/// What a client has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    /// Bytes of pictures that were acknowledged, or came back.
    pub(super) bytes: u64,
    /// Bytes that its streams carried for that, counted above QUIC.
    pub(super) sent: u64,
    /// A sentence for each picture that failed.
    pub(super) failed: Vec<String>,
}

impl Load {
    fn pictures(self) -> impl Iterator<Item = Picture> {
        let picture =
            move |index| Picture { seed: self.seed, index, width: self.edge_px, height: self.edge_px };
        (0..self.count).map(picture)
    }

    /// The puts with their bytes; none for [`Way::Get`].
    fn puts(self) -> Vec<Put> {
        let put = |picture: Picture| Put {
            source: Source::Memory(Arc::from(picture.png())),
            name: picture.name(),
            force: false,
            if_version: None,
            copies: self.copies,
            thumbnail: false,
        };
        if self.way == Way::Put { self.pictures().map(put).collect() } else { Vec::new() }
    }

    /// As many pictures at once as a client may.
    async fn run(self, vault: &Vault, puts: Vec<Put>) -> Done {
        let sent_before = vault.stream_bytes_written();
        let results: Vec<(String, Result<u64, _>)> = match self.way {
            Way::Put => {
                let put = |put: Put| async move { (put.name.clone(), put_one(vault, put).await) };
                stream::iter(puts).map(put).buffer_unordered(TRANSFERS_MAX).collect().await
            }
            Way::Get => {
                let get = |picture: Picture| async move { (picture.name(), get_one(vault, picture).await) };
                stream::iter(self.pictures()).map(get).buffer_unordered(TRANSFERS_MAX).collect().await
            }
        };
        let sent = vault.stream_bytes_written() - sent_before;
        let mut done = Done { sent, ..Done::default() };
        for (name, result) in results {
            match result {
                Ok(bytes) => done.bytes += bytes,
                Err(error) => done.failed.push(format!("{name}: {error}")),
            }
        }
        done
    }
}

async fn put_one(vault: &Vault, put: Put) -> Result<u64> {
    Ok(vault.put(put, &|_| ()).await?.bytes)
}

async fn get_one(vault: &Vault, picture: Picture) -> Result<u64> {
    let get = Get { name: picture.name(), version: None, any: false };
    Ok(vault.get_to_writer(get, &mut std::io::sink(), &|_| ()).await?.bytes)
}

/// What the process does: see the head of this file. `load` is a [`Load`] as JSON.
pub(super) async fn serve(load: &str, context: &Context) -> Result<()> {
    let load: Load = serde_json::from_str(load).context("a load that cannot be read")?;
    let vault = Vault::open(Connect { mdns: false, ..context.connect() }).await?;
    vault.user().await?;
    // Asks every node, and so is connected with all of them from here on.
    vault.list("", false, false).await?;
    let puts = tokio::task::spawn_blocking(move || load.puts()).await.context("making pictures")?;
    let mut orders = tokio::io::stdin();
    say(READY)?;
    orders.read_exact(&mut [0; GO.len()]).await.context("waiting for the word")?;
    let done = tokio::select! {
        done = load.run(&vault, puts) => done,
        () = end(&mut orders) => bail!("whoever started this load has gone"),
    };
    say(&serde_json::to_string(&done)?)?;
    end(&mut orders).await;
    vault.close().await;
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// Waits until standard input ends.
async fn end(orders: &mut Stdin) {
    while orders.read(&mut [0; 16]).await.is_ok_and(|bytes| bytes > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { way: Way::Put, seed: 7, count: 3, edge_px: 20, copies: 3 };

    #[test]
    fn a_load_survives_its_way_to_another_process() {
        let told = serde_json::to_string(&LOAD).unwrap();
        assert_eq!(serde_json::from_str::<Load>(&told).unwrap(), LOAD);
        let done = Done { bytes: 5, sent: 6, failed: vec!["a: it \"broke\"\nhere".into()] };
        let said = serde_json::to_string(&done).unwrap();
        assert!(!said.contains('\n'), "{said}");
        assert_eq!(serde_json::from_str::<Done>(&said).unwrap(), done);
    }

    #[test]
    fn no_two_pictures_are_the_same_and_a_get_brings_none() {
        let bytes = |load: Load| -> Vec<Arc<[u8]>> {
            let source = |put: Put| match put.source {
                Source::Memory(bytes) => bytes,
                other => panic!("{other:?}"),
            };
            load.puts().into_iter().map(source).collect()
        };
        let mut all = bytes(LOAD);
        all.extend(bytes(Load { seed: 8, ..LOAD }));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
        assert!(bytes(Load { way: Way::Get, ..LOAD }).is_empty());
    }
}
