//! The contrastive loss against open_clip's, recorded in goldens/losses.

use crate::support::{Golden, relative_l2};
use openvision_kernels::Isa;
use openvision_kernels::vector::Rows;
use openvision_train::contrastive;

#[test]
fn clip_loss_and_its_gradients_match_open_clip() {
    let golden = Golden::open("losses/losses.safetensors");
    let (image, text) = (golden.values("image_raw"), golden.values("text_raw"));
    let log_scale = (1.0f32 / 0.07).ln();
    for isa in Isa::present() {
        let got = contrastive(isa, Rows::new(&image, 12, 24), Rows::new(&text, 12, 24), log_scale);
        let loss = f64::from(golden.values("clip.loss")[0]);
        assert!((got.loss - loss).abs() < 1e-6 * loss, "{} {} {loss}", isa.name(), got.loss);
        let slope = f64::from(golden.values("clip.d_log_scale")[0]);
        assert!((got.log_scale - slope).abs() < 3e-6 * slope.abs(), "{} {} {slope}", isa.name(), got.log_scale);
        for (name, got) in [("clip.d_image_raw", &got.image), ("clip.d_text_raw", &got.text)] {
            let error = relative_l2(got, &golden.values(name));
            assert!(error < 3e-6, "{} {name} {error:e}", isa.name());
            println!("{} {name}: relative L2 error {error:.1e}", isa.name());
        }
    }
}

#[test]
fn a_batch_of_one_has_no_loss_and_no_gradient() {
    let got = contrastive(Isa::best(), Rows::new(&[1.0, 2.0], 1, 2), Rows::new(&[0.5, -1.0], 1, 2), 3.0);
    assert_eq!((got.loss, got.log_scale), (0.0, 0.0));
    assert!(got.image.iter().chain(&got.text).all(|v| *v == 0.0));
}
