//! An embedding depends on its input alone: not on threads, batch, position in it, or the instruction set.

use crate::support::{formula_model, goldens, pool, relative_l2, uniform};
use openvision_kernels::Isa;
use openvision_model::tower::Until;
use openvision_model::{Fill, LoadOptions, Model, Pass};
use std::sync::Mutex;

/// Encodes `count` pictures together and returns all embeddings.
fn pictures(model: &Model, count: usize) -> Vec<f32> {
    let one = 3 * model.config.image.height * model.config.image.width;
    let mut pixels = vec![0.0; count * one];
    uniform("independence/pixels", &mut pixels);
    model.encode_pixels(&pixels).unwrap()
}

fn texts(model: &Model, count: usize) -> Vec<f32> {
    let text = model.config.text().unwrap();
    let ids: Vec<Vec<u32>> = (0..count)
        .map(|i| {
            let mut ids: Vec<u32> =
                (0..text.context).map(|t| ((i * 31 + t * 7 + 1) % (text.vocabulary - 1)) as u32).collect();
            // The end token, anywhere.
            ids[i * 11 % text.context] = text.vocabulary as u32 - 1;
            ids
        })
        .collect();
    model.encode_ids(&ids).unwrap()
}

#[test]
fn bits_do_not_depend_on_threads_batch_position_or_set() {
    // Every batch holds the same pictures in the same places, so a prefix of the largest batch is the smaller one.
    for folder in ["openvision-tiny", "open_clip-gelu", "hf-clip"] {
        let mut reference: Option<(Vec<f32>, Vec<f32>)> = None;
        for isa in Isa::present() {
            for threads in [1, 2, 3] {
                let options = LoadOptions { isa: Some(isa), ..LoadOptions::default() };
                let model = Model::load(&goldens().join(folder), &options, pool(threads)).unwrap();
                let all = (pictures(&model, 32), texts(&model, 32));
                let (want_images, want_texts) = reference.get_or_insert_with(|| all.clone());
                assert_eq!(&all.0, want_images, "{folder} {} {threads} threads, pictures", isa.name());
                assert_eq!(&all.1, want_texts, "{folder} {} {threads} threads, texts", isa.name());
                for count in [1, 7] {
                    let images = pictures(&model, count);
                    assert_eq!(images[..], want_images[..images.len()], "{folder} {} batch {count}", isa.name());
                    let some = texts(&model, count);
                    assert_eq!(some[..], want_texts[..some.len()], "{folder} {} batch {count}", isa.name());
                }
                for position in 0..32 {
                    let one = 3 * model.config.image.height * model.config.image.width;
                    let mut pixels = vec![0.0; 32 * one];
                    uniform("independence/pixels", &mut pixels);
                    let alone = model.encode_pixels(&pixels[position * one..][..one]).unwrap();
                    let width = model.config.embed_dim;
                    assert_eq!(alone[..], want_images[position * width..][..width], "{folder} position {position}");
                }
            }
        }
    }
}

/// All tokens are computed for an observer, else only those that pooling reads.
#[test]
fn an_observer_changes_nothing_but_the_order_of_sums() {
    for folder in ["openvision-tiny", "open_clip-gelu", "hf-clip", "hf-siglip"] {
        let model = Model::load(&goldens().join(folder), &LoadOptions::default(), pool(2)).unwrap();
        let one = 3 * model.config.image.height * model.config.image.width;
        let mut pixels = vec![0.0; 5 * one];
        uniform("independence/pixels", &mut pixels);
        let seen = Mutex::new(vec![Vec::new(); 5]);
        let pass = Pass {
            count: 5,
            until: Until::Embedding,
            fill: &|index, item| {
                item.pixels.copy_from_slice(&pixels[index * one..][..one]);
                Fill::Ready
            },
            sink: &|index, embedding| seen.lock().unwrap()[index] = embedding.to_vec(),
            observe: Some(&|_, _, _, _| {}),
        };
        model.image().unwrap().run(model.pool(), &pass);
        let (seen, unseen) = (seen.into_inner().unwrap().concat(), model.encode_pixels(&pixels).unwrap());
        assert!(relative_l2(&unseen, &seen) < 2e-6, "{folder}: {:.1e}", relative_l2(&unseen, &seen));
    }
}

#[test]
fn merged_tokens_give_the_same_bits_everywhere_and_another_fingerprint() {
    let (mut references, mut fingerprints) = (Vec::new(), Vec::new());
    for merge_tokens in [0, 3, 1000] {
        let mut reference: Option<Vec<f32>> = None;
        for isa in Isa::present() {
            for threads in [1, 2, 3] {
                let options = LoadOptions { isa: Some(isa), merge_tokens, ..LoadOptions::default() };
                let model = Model::load(&goldens().join("openvision-tiny"), &options, pool(threads)).unwrap();
                for count in [32, 7, 1] {
                    let got = pictures(&model, count);
                    let want = reference.get_or_insert_with(|| got.clone());
                    let context = format!("{} {threads} threads, batch {count}, {merge_tokens} merged", isa.name());
                    assert_eq!(got[..], want[..got.len()], "{context}");
                }
                fingerprints.push((merge_tokens, model.image_fingerprint().unwrap()));
            }
        }
        references.extend(reference);
    }
    let (plain, width) = (&references[0], 48);
    let cosines = |other: &[f32]| -> Vec<f32> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let pairs = plain.chunks(width).zip(other.chunks(width));
        pairs.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).collect()
    };
    for merged in &references[1..] {
        let cosines = cosines(merged);
        assert!(cosines.iter().all(|cosine| (0.5..0.999_999).contains(cosine)), "{cosines:?}");
    }
    fingerprints.sort();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 3, "{fingerprints:?}");
    let options = LoadOptions { merge_tokens: 2, ..LoadOptions::default() };
    let refused = Model::load(&goldens().join("hf-siglip"), &options, pool(1)).err().unwrap().to_string();
    assert!(refused.contains("attention pooling"), "{refused}");
}

#[test]
fn a_full_size_model_gives_the_same_bits_on_fast_sets() {
    let mut reference: Option<Vec<f32>> = None;
    for isa in Isa::present().into_iter().filter(|isa| isa.name() != "portable") {
        for threads in [1, 2] {
            let options = LoadOptions { isa: Some(isa), text: false, ..LoadOptions::default() };
            let model = formula_model("openvision-tiny-p16-160", pool(threads), &options);
            for count in [32, 7, 1] {
                let got = pictures(&model, count);
                let want = reference.get_or_insert_with(|| got.clone());
                assert_eq!(got[..], want[..got.len()], "{} {threads} threads, batch {count}", isa.name());
            }
        }
    }
}
