#!/bin/sh
# Makes the peers in a folder outside of the repository: PEERS=/somewhere sh setup.sh [onnx] [torch] [rust]
#   onnx   onnxruntime, OpenVINO and NNCF in a Python environment, some 900 MB (the default)
#   torch  PyTorch and open_clip in the same environment; the wheels bring CUDA, some 5 GB
#   rust   rten and candle, built here for this machine's processor: minutes, and a Rust toolchain
set -eu
: "${PEERS:?set PEERS to a folder for the peers, outside of the repository}"
here=$(cd "$(dirname "$0")" && pwd)
[ -x "$PEERS/bin/python" ] || python3 -m venv "$PEERS"
pip() { "$PEERS/bin/python" -m pip install --quiet "$@"; }
for part in "${@:-onnx}"; do
    case $part in
    onnx)
        pip onnxruntime==1.32.0 openvino==2026.4.1 nncf==3.4.0 numpy==2.4.6 onnx==1.23.2 safetensors==0.8.0 pillow==13.0.0
        "$PEERS/bin/python" -c 'import onnxruntime, openvino; print(onnxruntime.__version__, openvino.__version__)'
        ;;
    torch)
        pip torch==2.15.0 torchvision==0.29.2 open_clip_torch==3.3.0
        "$PEERS/bin/python" -c 'import torch, open_clip; print(torch.__version__, open_clip.__version__)'
        ;;
    rust)
        for peer in rten candle; do
            # candle chooses its loops when it is compiled, so a plain build would be a slow peer.
            RUSTFLAGS="-C target-cpu=native" cargo build --release --manifest-path "$here/$peer/Cargo.toml" \
                --target-dir "$PEERS/rust"
        done
        ls "$PEERS"/rust/release/peer-rten "$PEERS"/rust/release/peer-candle
        ;;
    *)
        echo "setup.sh: '$part' is none of: onnx, torch, rust" >&2
        exit 2
        ;;
    esac
done
