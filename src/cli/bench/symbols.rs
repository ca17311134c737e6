//! In which room a processor was, by the name of the function that it was in. Pure.
//!
//! A function is sorted by its own name, not by who called it: copies made for the network and for the disk
//! are one room. What no rule knows is its own room and is shown.

/// What is left when no rule knows a function: mostly generic functions of the standard library.
pub(super) const UNCLASSIFIED: &str = "unclassified";

const READ: &str = "read and check";
const HASH: &str = "hash";
const ENCRYPT: &str = "encrypt";
const SIGNATURES: &str = "signatures";
const TLS: &str = "TLS";
const QUIC: &str = "QUIC and runtime";
const RECORDS: &str = "records (redb)";
const COPIES: &str = "allocation and copies";
const KERNEL_UDP: &str = "kernel (udp)";
const KERNEL_FILES: &str = "kernel (file system)";
const KERNEL_COPIES: &str = "kernel (copies)";
const KERNEL_MEMORY: &str = "kernel (memory)";
const KERNEL_TASKS: &str = "kernel (tasks and waiting)";
const KERNEL_REST: &str = "kernel (rest)";

/// Paths of Rust and their rooms; of several in one name the leftmost decides, of two that begin at the same
/// place the one that stands here first.
const PATHS: [(&str, &str); 45] = [
    ("tintype::client::files", READ),
    ("tintype::client", "tintype client"),
    ("tintype::node", "tintype node"),
    ("tintype::net", "tintype net"),
    ("tintype::disk", "tintype disk"),
    ("tintype::proto", "tintype proto"),
    ("tintype::seal", "tintype seal"),
    ("tintype::model", "tintype model"),
    ("tintype::", "tintype cli"),
    ("crc32fast::", READ),
    ("simd_adler32::", READ),
    ("memchr::", READ),
    ("blake3::", HASH),
    ("aes::", ENCRYPT),
    ("ctr::", ENCRYPT),
    ("cipher::", ENCRYPT),
    ("inout::", ENCRYPT),
    ("ed25519_dalek::", SIGNATURES),
    ("ed25519::", SIGNATURES),
    ("curve25519_dalek::", SIGNATURES),
    ("sha2::", SIGNATURES),
    ("rustls", TLS),
    ("aws_lc", TLS),
    ("libp2p_tls::", TLS),
    ("rcgen::", TLS),
    ("x509_parser::", TLS),
    ("webpki::", TLS),
    ("quinn", QUIC),
    ("libp2p", QUIC),
    ("tokio::", QUIC),
    ("mio::", QUIC),
    ("futures", QUIC),
    ("multistream_select::", QUIC),
    ("asynchronous_codec::", QUIC),
    ("socket2::", QUIC),
    ("slab::", QUIC),
    ("lru_slab::", QUIC),
    ("rustc_hash::", QUIC),
    ("redb::", RECORDS),
    ("bytes::", COPIES),
    ("alloc::alloc::", COPIES),
    ("alloc::raw_vec::", COPIES),
    ("__rustc::__rust_", COPIES),
    ("__rust_alloc", COPIES),
    ("__rust_dealloc", COPIES),
];

/// Parts of names that are no paths: assembly, C, and the C library.
const PLAIN: [(&str, &str); 30] = [
    ("blake3", HASH),
    ("aws_lc", TLS),
    ("chacha20_poly1305", TLS),
    ("poly1305", TLS),
    ("poly_hash", TLS),
    ("aead_", TLS),
    ("gcm_", TLS),
    ("evp_aead", TLS),
    ("memmove", COPIES),
    ("memcpy", COPIES),
    ("memset", COPIES),
    ("malloc", COPIES),
    ("calloc", COPIES),
    ("realloc", COPIES),
    ("_int_free", COPIES),
    ("cfree", COPIES),
    ("unlink_chunk", COPIES),
    ("systrim", COPIES),
    ("sysmalloc", COPIES),
    ("madvise", COPIES),
    ("__rust_alloc", COPIES),
    ("__rust_dealloc", COPIES),
    ("__rust_no_alloc", COPIES),
    ("epoll_wait", QUIC),
    ("sendmsg", QUIC),
    ("sendmmsg", QUIC),
    ("recvmsg", QUIC),
    ("recvmmsg", QUIC),
    ("clock_gettime", QUIC),
    ("pthread_", QUIC),
];

/// Parts of the kernel's names; the first that fits decides.
const KERNEL: [(&str, &str); 92] = [
    ("copy_folio", KERNEL_FILES),
    ("copy_page_from_iter", KERNEL_FILES),
    ("copy_to_iter", KERNEL_COPIES),
    ("copy_from_iter", KERNEL_COPIES),
    ("copy_user", KERNEL_COPIES),
    ("copy_to_user", KERNEL_COPIES),
    ("copy_from_user", KERNEL_COPIES),
    ("rep_movs", KERNEL_COPIES),
    ("memcpy", KERNEL_COPIES),
    ("check_object_size", KERNEL_COPIES),
    ("virt_addr_valid", KERNEL_COPIES),
    ("udp", KERNEL_UDP),
    ("skb", KERNEL_UDP),
    ("sock", KERNEL_UDP),
    ("ip_", KERNEL_UDP),
    ("ip4_", KERNEL_UDP),
    ("ip6_", KERNEL_UDP),
    ("ipv4", KERNEL_UDP),
    ("ipv6", KERNEL_UDP),
    ("inet", KERNEL_UDP),
    ("fib_", KERNEL_UDP),
    ("dst_", KERNEL_UDP),
    ("neigh", KERNEL_UDP),
    ("netif", KERNEL_UDP),
    ("net_rx", KERNEL_UDP),
    ("napi", KERNEL_UDP),
    ("dev_queue", KERNEL_UDP),
    ("dev_hard", KERNEL_UDP),
    ("loopback", KERNEL_UDP),
    ("process_backlog", KERNEL_UDP),
    ("eth_", KERNEL_UDP),
    ("recvm", KERNEL_UDP),
    ("sendm", KERNEL_UDP),
    ("nf_", KERNEL_UDP),
    ("datagram", KERNEL_UDP),
    ("csum", KERNEL_UDP),
    ("ext4", KERNEL_FILES),
    ("jbd2", KERNEL_FILES),
    ("btrfs", KERNEL_FILES),
    ("xfs", KERNEL_FILES),
    ("vfs_", KERNEL_FILES),
    ("bio_", KERNEL_FILES),
    ("blk_", KERNEL_FILES),
    ("block_", KERNEL_FILES),
    ("get_block", KERNEL_FILES),
    ("mpage_", KERNEL_FILES),
    ("buffer_dirty", KERNEL_FILES),
    ("buffer_head", KERNEL_FILES),
    ("virtio", KERNEL_FILES),
    ("virtqueue", KERNEL_FILES),
    ("virtblk", KERNEL_FILES),
    ("iowrite", KERNEL_FILES),
    ("filemap", KERNEL_FILES),
    ("writeback", KERNEL_FILES),
    ("fsync", KERNEL_FILES),
    ("xas_", KERNEL_FILES),
    ("inode", KERNEL_FILES),
    ("dentry", KERNEL_FILES),
    ("d_lookup", KERNEL_FILES),
    ("link_path", KERNEL_FILES),
    ("getname", KERNEL_FILES),
    ("recently_deleted", KERNEL_FILES),
    ("iomap", KERNEL_FILES),
    ("crc32c", KERNEL_FILES),
    ("page_fault", KERNEL_MEMORY),
    ("handle_mm", KERNEL_MEMORY),
    ("clear_page", KERNEL_MEMORY),
    ("anon_page", KERNEL_MEMORY),
    ("unmap_", KERNEL_MEMORY),
    ("zap_", KERNEL_MEMORY),
    ("pte_", KERNEL_MEMORY),
    ("vma", KERNEL_MEMORY),
    ("mmap", KERNEL_MEMORY),
    ("memcg", KERNEL_MEMORY),
    ("page_from_freelist", KERNEL_MEMORY),
    ("alloc_pages", KERNEL_MEMORY),
    ("free_unref", KERNEL_MEMORY),
    ("rmqueue", KERNEL_MEMORY),
    ("kmem_cache", KERNEL_MEMORY),
    ("slab", KERNEL_MEMORY),
    ("kmalloc", KERNEL_MEMORY),
    ("kfree", KERNEL_MEMORY),
    ("lru_", KERNEL_MEMORY),
    ("folio", KERNEL_MEMORY),
    ("sched", KERNEL_TASKS),
    ("task_switch", KERNEL_TASKS),
    ("futex", KERNEL_TASKS),
    ("epoll", KERNEL_TASKS),
    ("ep_", KERNEL_TASKS),
    ("wake_up", KERNEL_TASKS),
    ("hrtimer", KERNEL_TASKS),
    ("queue_entity", KERNEL_TASKS),
];

/// The room of a function in an object file, both as perf names them.
pub(super) fn room(symbol: &str, object: &str) -> &'static str {
    if is_kernel(object) {
        return first(&KERNEL, symbol).unwrap_or(KERNEL_REST);
    }
    let known = if symbol.contains("::") { leftmost(symbol) } else { first(&PLAIN, symbol) };
    known.unwrap_or(UNCLASSIFIED)
}

/// The kernel and its modules stand in brackets, and so do some things of a process.
fn is_kernel(object: &str) -> bool {
    let of_process = ["[vdso]", "[vsyscall]", "[unknown]", "[heap]", "[stack]"];
    object.starts_with('[') && !of_process.contains(&object)
}

fn first(rules: &[(&str, &'static str)], symbol: &str) -> Option<&'static str> {
    let symbol = symbol.to_ascii_lowercase();
    rules.iter().find(|(part, _)| symbol.contains(part)).map(|(_, room)| *room)
}

fn leftmost(symbol: &str) -> Option<&'static str> {
    let found = PATHS.iter().filter_map(|(path, room)| Some((place(symbol, path)?, *room)));
    // Of equals `min_by_key` takes the first.
    found.min_by_key(|(at, _)| *at).map(|(_, room)| room)
}

/// Where a path begins in a name; not in the middle of a word or of another path.
fn place(symbol: &str, path: &str) -> Option<usize> {
    let begins = |at: &usize| {
        let before = symbol[..*at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | ':'))
    };
    symbol.match_indices(path).map(|(at, _)| at).find(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "/usr/local/bin/tintype";
    const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
    const THE_KERNEL: &str = "[kernel.kallsyms]";

    #[test]
    fn functions_of_the_program_are_sorted_by_their_own_path() {
        for (symbol, expected) in [
            ("aes::backends::x86_vaes512::Aes<_>::encrypt", ENCRYPT),
            ("_blake3_hash_many_avx512", HASH),
            ("<blake3::platform::Platform>::hash_many", HASH),
            (
                "<&curve25519_dalek::backend::vector::avx2::field::FieldElement2625x4 as core::ops::arith::Mul>::mul",
                SIGNATURES,
            ),
            ("chacha20_poly1305_seal_avx2", TLS),
            ("aws_lc_0_47_0_aes_gcm_decrypt_avx512", TLS),
            ("aead_aes_gcm_open_gather_impl", TLS),
            ("poly_hash_ad_internal", TLS),
            (
                "<rustls::crypto::aws_lc_rs::quic::PacketKey as rustls::quic::PacketKey>::encrypt_in_place",
                TLS,
            ),
            ("aws_lc_rs::aead::unbound_key::UnboundKey::open_within", TLS),
            ("quinn_proto::connection::Connection::poll_transmit", QUIC),
            (
                "quinn_proto::crypto::rustls::<impl quinn_proto::crypto::PacketKey for alloc::boxed::Box<dyn rustls::quic::PacketKey>>::tag_len",
                QUIC,
            ),
            ("<quinn::connection::ConnectionDriver as core::future::future::Future>::poll", QUIC),
            ("<libp2p_core::muxing::boxed::SubstreamBox as futures_io::if_std::AsyncRead>::poll_read", QUIC),
            ("tokio::runtime::task::harness::Harness<T,S>::poll", QUIC),
            ("futures_util::stream::futures_unordered::task::waker_ref::wake_by_ref_arc_raw", QUIC),
            ("redb::tree_store::page_store::cached_file::PagedCachedFile::read", RECORDS),
            ("bytes::bytes_mut::shared_v_drop", COPIES),
            ("crc32fast::specialized::pclmulqdq::calculate_avx512", READ),
            ("simd_adler32::imp::avx2::imp::update_imp", READ),
            ("tintype::client::files::structure::png::Png::push", READ),
            ("tintype::client::upload::Reader::run", "tintype client"),
            ("tintype::net::bulk::framing::read_some::{{closure}}", "tintype net"),
            ("<tintype::node::bodies::Bodies>::serve", "tintype node"),
            ("tintype::cli::up::run::{{closure}}", "tintype cli"),
        ] {
            assert_eq!(room(symbol, PROGRAM), expected, "{symbol}");
        }
    }

    #[test]
    fn what_belongs_to_nobody_is_said_to() {
        for symbol in [
            "alloc::collections::btree::map::BTreeMap<K,V,A>::insert",
            "<core::future::poll_fn::PollFn<F> as core::future::future::Future>::poll",
            "<std::time::Instant as core::ops::arith::Add<core::time::Duration>>::add",
            "[unknown]",
            "main",
        ] {
            assert_eq!(room(symbol, PROGRAM), UNCLASSIFIED, "{symbol}");
        }
    }

    #[test]
    fn a_name_is_no_part_of_another_name() {
        assert_eq!(room("core::aes::x", PROGRAM), UNCLASSIFIED);
        assert_eq!(room("my_tokio::x", PROGRAM), UNCLASSIFIED);
        assert_eq!(room("core::ptr::drop_in_place<tokio::sync::Notify>", PROGRAM), QUIC);
    }

    #[test]
    fn the_c_library_copies_and_allocates() {
        for symbol in [
            "__memmove_avx512_unaligned_erms",
            "__memset_avx512_unaligned_erms",
            "malloc",
            "_int_malloc",
            "_int_free",
            "cfree@GLIBC_2.2.5",
            "unlink_chunk.constprop.0",
        ] {
            assert_eq!(room(symbol, LIBC), COPIES, "{symbol}");
        }
        assert_eq!(room("epoll_wait", LIBC), QUIC);
        assert_eq!(room("__vdso_clock_gettime", "[vdso]"), QUIC);
    }

    #[test]
    fn the_kernel_has_rooms_of_its_own() {
        for (symbol, expected) in [
            ("__ip_append_data", KERNEL_UDP),
            ("skb_page_frag_refill", KERNEL_UDP),
            ("__udp_enqueue_schedule_skb", KERNEL_UDP),
            ("____sys_recvmsg", KERNEL_UDP),
            ("fib_table_lookup", KERNEL_UDP),
            ("copy_folio_from_iter_atomic", KERNEL_FILES),
            ("ext4_da_get_block_prep", KERNEL_FILES),
            ("mpage_process_page_bufs", KERNEL_FILES),
            ("find_get_block_common", KERNEL_FILES),
            ("_copy_to_iter", KERNEL_COPIES),
            ("clear_page_erms", KERNEL_MEMORY),
            ("exc_page_fault", KERNEL_MEMORY),
            ("finish_task_switch.isra.0", KERNEL_TASKS),
            ("__schedule", KERNEL_TASKS),
            ("_raw_spin_unlock_irqrestore", KERNEL_REST),
            ("do_syscall_64", KERNEL_REST),
        ] {
            assert_eq!(room(symbol, THE_KERNEL), expected, "{symbol}");
        }
        assert_eq!(room("ext4_writepages", "[ext4]"), KERNEL_FILES);
    }
}
