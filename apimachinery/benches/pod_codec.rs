//! What a pod costs on its way through the API server, in CPU and allocations.
//!
//! (a) the tree typed by the table, which the crate is built on; (b) serde structs: `serde_json` into `k8s-openapi`'s Pod and back.
//! (b) defaults nothing and, having no protobuf, stores JSON: both favour it.
//!
//! `cargo bench -p apimachinery --bench pod_codec`

#![allow(unsafe_code)]

use apimachinery::json::{self, FieldValidation};
use apimachinery::protobuf::{self, Inject};
use apimachinery::schema::{Gvk, registry};
use apimachinery::{defaults, patch};
use k8s_openapi::api::core::v1::Pod;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what goes through the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(size as u64, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BODY: &[u8] = include_bytes!("pod.json");
const ROUNDS: u64 = 20_000;
const REPEATS: usize = 5;

/// Nanoseconds that this thread has been on a CPU.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok())
        .unwrap_or_default()
}

fn measure(name: &str, mut f: impl FnMut()) {
    (0..ROUNDS / 10).for_each(|_| f());
    let mut times: Vec<f64> = Vec::new();
    let (allocations, bytes) = (ALLOCATIONS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    for _ in 0..REPEATS {
        let start = cpu_ns();
        (0..ROUNDS).for_each(|_| f());
        times.push((cpu_ns() - start) as f64 / ROUNDS as f64 / 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let rounds = ROUNDS * REPEATS as u64;
    let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - allocations) / rounds;
    let bytes = (BYTES.load(Ordering::Relaxed) - bytes) / rounds;
    println!(
        "{name:<58} {:>7.2} us CPU (median of {REPEATS}, {:.2}-{:.2})  {allocations:>4} allocations  {bytes:>6} bytes",
        times[REPEATS / 2],
        times[0],
        times[REPEATS - 1]
    );
}

fn main() {
    let start = std::time::Instant::now();
    let gvk = Gvk::new("", "v1", "Pod");
    let ty = registry().kind(gvk).expect("the table has pods");
    println!(
        "schema: {} types read in {:?}",
        registry().types().len(),
        start.elapsed()
    );

    let tree = || {
        let mut pod = json::decode(BODY, Some(ty), FieldValidation::Strict)
            .expect("the body is a pod")
            .value;
        defaults::apply(&mut pod, ty);
        pod
    };
    let mut raw = Vec::new();
    protobuf::encode(&tree(), ty, &mut raw).expect("the tree is a pod");
    let stored: Pod = serde_json::from_slice(BODY).expect("the body is a pod");
    let stored = serde_json::to_vec(&stored).expect("a pod is JSON");
    println!(
        "body {} bytes, protobuf {} bytes, JSON {} bytes",
        BODY.len(),
        raw.len(),
        stored.len()
    );

    measure("create (a): JSON -> tree", || {
        drop(black_box(json::decode(BODY, Some(ty), FieldValidation::Strict)))
    });
    measure("create (a): JSON -> tree -> defaulted", || {
        drop(black_box(tree()))
    });
    measure("create (a): JSON -> tree -> defaulted -> protobuf", || {
        let mut out = Vec::with_capacity(4096);
        protobuf::encode_wrapped(&tree(), ty, gvk, &mut out).expect("the tree is a pod");
        black_box(out);
    });
    measure("create (b): JSON -> Pod -> JSON", || {
        let pod: Pod = serde_json::from_slice(BODY).expect("the body is a pod");
        black_box(serde_json::to_vec(&pod).expect("a pod is JSON"));
    });

    let inject = Inject {
        resource_version: "123456",
        api_version: "v1",
        kind: "Pod",
    };
    measure("get (a): protobuf -> JSON, streamed", || {
        let mut out = Vec::with_capacity(8192);
        protobuf::to_json(&raw, ty, &inject, &mut out).expect("the bytes are a pod");
        black_box(out);
    });
    measure("get (a): protobuf -> protobuf with resourceVersion", || {
        let mut out = Vec::new();
        protobuf::with_resource_version(&raw, ty, "123456", &mut out).expect("the bytes are a pod");
        black_box(out);
    });
    measure("get (b): JSON -> Pod with resourceVersion -> JSON", || {
        let mut pod: Pod = serde_json::from_slice(&stored).expect("the bytes are a pod");
        pod.metadata.resource_version = Some("123456".to_owned());
        black_box(serde_json::to_vec(&pod).expect("a pod is JSON"));
    });

    let change = json::decode_untyped(br#"{"status":{"phase":"Running","podIP":"10.244.0.7","conditions":[{"type":"Ready","status":"True"}]}}"#)
        .expect("the patch is JSON");
    measure(
        "patch (a): protobuf -> tree -> strategic -> conform -> protobuf",
        || {
            let mut pod = protobuf::decode(&raw, ty).expect("the bytes are a pod");
            patch::strategic(&mut pod, &change, ty).expect("the patch fits");
            let pod = json::conform(&pod, ty, FieldValidation::Strict)
                .expect("the result is a pod")
                .value;
            let mut out = Vec::with_capacity(4096);
            protobuf::encode_wrapped(&pod, ty, gvk, &mut out).expect("the tree is a pod");
            black_box(out);
        },
    );
}
