#!/bin/sh
# Makes a Python environment with the peers in a folder outside of the repository: PEERS=/somewhere sh setup.sh
set -eu
: "${PEERS:?set PEERS to a folder for the Python environment, outside of the repository}"
python3 -m venv "$PEERS"
"$PEERS/bin/python" -m pip install --quiet --upgrade pip
"$PEERS/bin/python" -m pip install --quiet \
    onnxruntime==1.32.0 openvino==2026.4.1 numpy==2.4.6 onnx==1.23.2 safetensors==0.8.0 pillow==13.0.0
"$PEERS/bin/python" -c 'import onnxruntime, openvino; print(onnxruntime.__version__, openvino.__version__)'
