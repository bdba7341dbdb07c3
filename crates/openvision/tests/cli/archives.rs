//! Checkpoints beside safetensors and torch: JAX trees in `.npz` archives, GGUF files.

use crate::support::{openvision, photo, testdata};
use serde_json::Value;

fn tree() -> String {
    testdata().join("formats/openvision-tree.npz").display().to_string()
}

/// numpy wrote the tree: deflated, under params/, with an array in Fortran order and one in bfloat16.
#[test]
fn a_jax_tree_is_shown_verified_converted_and_embeds() {
    let folder = tempfile::tempdir().unwrap();
    let shown = openvision(&["models", "show", &tree(), "--json"]).expect(0).json_lines().remove(0);
    assert_eq!(shown["container"], "npz tree");
    assert_eq!(shown["layout"], "OpenVision's JAX tree");
    assert_eq!(shown["config"]["image"]["transformer"]["heads"], 2);
    assert_eq!(shown["patch_size"], 4);
    assert!(shown["notes"].to_string().contains("224 is taken"), "{}", shown["notes"]);
    assert!(openvision(&["models", "verify", &tree()]).expect(0).stdout.contains("the model is fine"));
    let embed = |model: &str, extra: &[&str]| {
        let picture = photo("china.jpg");
        let all = [&["embed", "-m", model, &picture, "--json"][..], extra].concat();
        openvision(&all).expect(0).json_lines().remove(0)
    };
    let mut from = tree();
    for layout in ["openvision", "open_clip"] {
        let to = folder.path().join(layout).display().to_string();
        openvision(&["models", "convert", &from, &to, "--to", layout]).expect(0);
        for extra in [&[][..], &["--image-size", "32"]] {
            let (got, want) = (embed(&to, extra), embed(&tree(), extra));
            assert_eq!(got["embedding"].as_array().unwrap().len(), 8);
            assert_eq!(
                (&got["embedding"], &got["fingerprint"]),
                (&want["embedding"], &want["fingerprint"]),
                "{layout}"
            );
        }
        from = to;
    }
    // Not a model, and still shown.
    let archive = testdata().join("corrupt/models/npz-good.npz").display().to_string();
    let shown = openvision(&["models", "show", &archive, "--json"]).expect(0).json_lines().remove(0);
    assert_eq!(shown["tensors"][0]["shape"].to_string(), "[2,2]");
    assert!(shown["notes"].to_string().contains("no known layout"), "{}", shown["notes"]);
}

#[test]
fn a_gguf_file_is_shown_with_its_metadata() {
    let path = testdata().join("goldens/gguf/blocks.gguf").display().to_string();
    let shown = openvision(&["models", "show", &path, "--json"]).expect(0).json_lines().remove(0);
    assert_eq!(shown["container"], "GGUF");
    assert_eq!(shown["tensors"].as_array().unwrap().len(), 19);
    assert_eq!(shown["metadata"]["general.architecture"], "llama");
    let printed = openvision(&["models", "show", &path]).expect(0).stdout;
    for line in [
        "  t.texts = [\"a\", \"\", \"Ġb\", \"d\", ...] (5 elements)\n",
        "  t.text = café\\n\n",
        "  t.f64 = 0.1\n",
        "  Q4_K \"Q4_K\" [4,512]\n",
        "a language model (architecture llama), not an encoder",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
}

/// A GGUF file of one f32 matrix and a number of blocks.
fn language_model(blocks: u32, values: [f32; 4]) -> Vec<u8> {
    let text = |t: &str| [&(t.len() as u64).to_le_bytes()[..], t.as_bytes()].concat();
    let mut out = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0".to_vec();
    out.extend([text("general.architecture"), vec![8, 0, 0, 0], text("llama")].concat());
    out.extend([text("llama.block_count"), vec![4, 0, 0, 0], blocks.to_le_bytes().to_vec()].concat());
    out.extend([text("blk.0.attn_q.weight"), vec![2, 0, 0, 0]].concat());
    out.extend([2u64, 2].map(u64::to_le_bytes).concat());
    out.extend([0; 12]);
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(values.map(f32::to_le_bytes).concat());
    out
}

#[test]
fn a_language_model_is_checked_and_refused_as_an_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let verify = |bytes: Vec<u8>, code: i32| -> Value {
        std::fs::write(&path, bytes).unwrap();
        openvision(&["models", "verify", &path.display().to_string(), "--json"]).expect(code).json_lines().remove(0)
    };
    let good = verify(language_model(1, [1.0; 4]), 0)["checked"].to_string();
    for part in ["GGUF: 1 tensors, 4 values", "all 1 blocks", "finite", "a language model (architecture llama)"] {
        assert!(good.contains(part), "{part}: {good}");
    }
    // A folder with one such file is the file.
    openvision(&["models", "verify", &folder.path().display().to_string()]).expect(0);
    let broken = verify(language_model(1, [1.0, 1.0, f32::NAN, 1.0]), 1)["problems"].to_string();
    assert!(broken.contains("not a finite number: blk.0.attn_q.weight at index 2"), "{broken}");
    let missing = verify(language_model(u32::MAX, [1.0; 4]), 1)["problems"].to_string();
    assert!(missing.contains("block 1 of 4294967295 has no tensor"), "{missing}");
    for command in [&["embed"][..], &["classify", "--labels", "a,b"]] {
        let (model, picture) = (path.display().to_string(), photo("china.jpg"));
        let all = [command, &["-m", &model, &picture]].concat();
        let ran = openvision(&all).expect(1);
        assert!(ran.stderr.contains("a language model (architecture llama), not an encoder"), "{}", ran.stderr);
    }
}

#[test]
fn smollm2_verifies() {
    let Some(path) = std::env::var_os("OPENVISION_SMOLLM2_GGUF") else {
        println!("skipped: OPENVISION_SMOLLM2_GGUF does not name SmolLM2-135M-Instruct.Q4_1.gguf");
        return;
    };
    let ran = openvision(&["models", "verify", path.to_str().unwrap()]).expect(0);
    assert!(ran.stdout.contains("272 tensors, 134515008 values"), "{}", ran.stdout);
}
