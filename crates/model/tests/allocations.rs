//! A forward pass in steady state allocates nothing, alone, in batches and in a team. A binary of its own: other
//! tests in the process would be counted too.

use openvision_kernels::pool::Pool;
use openvision_model::tower::Until;
use openvision_model::{Arithmetic, Fill, LoadOptions, Model, Pass};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::path::Path;
use std::sync::Arc;

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_steady_state_forward_allocates_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/goldens/openvision-tiny");
    for (threads, arithmetic) in
        [(1, Arithmetic::Float), (2, Arithmetic::Float), (1, Arithmetic::Int8), (2, Arithmetic::Int8)]
    {
        let options = LoadOptions { arithmetic, ..LoadOptions::default() };
        let model = Model::load(&folder, &options, Arc::new(Pool::new(threads))).expect("a golden loads");
        for count in [1, 2, 7, 32] {
            let pass = Pass {
                count,
                until: Until::Embedding,
                fill: &|index, item| {
                    item.pixels.fill(index as f32);
                    item.ids.fill(index as u32);
                    Fill::Ready
                },
                sink: &|_, embedding| assert!(embedding.iter().all(|v| v.is_finite())),
                observe: None,
            };
            for encoder in [model.image().expect("loaded"), model.text().expect("loaded")] {
                // Which thread takes which items differs from run to run, so both have to have seen the largest group.
                (0..100).for_each(|_| encoder.run(model.pool(), &pass));
                let region = Region::new(GLOBAL);
                encoder.run(model.pool(), &pass);
                let change = region.change();
                assert_eq!(
                    change.allocations + change.reallocations,
                    0,
                    "{threads} threads, {arithmetic:?}, {count} items: {change:?}"
                );
            }
        }
    }
}
