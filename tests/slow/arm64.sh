#!/usr/bin/env bash
# An arm64 board's userland in the folder $1: Debian's own packages, unpacked and not installed, run by qemu;
# numpy and ONNX Runtime as an arm64 Python would get them. $2 is a Python with pip. Needs qemu-aarch64-static.
set -euo pipefail
folder=$(realpath -m "$1") python=$2
qemu=$(command -v qemu-aarch64-static) || { echo "qemu-aarch64-static is missing: apt install qemu-user-static" >&2; exit 2; }
rm -rf "$folder"
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$folder/root" "$folder/bin"
: > "$folder/apt/status"
# The host's sources and keys, with a state of its own in which nothing is installed.
apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root
    -o Dir::State="$folder/apt" -o Dir::State::status="$folder/apt/status" -o Dir::Cache="$folder/apt"
    -o Dir::Cache::archives="$folder/apt/archives" -o APT::Install-Recommends=false)
"${apt[@]}" update
"${apt[@]}" install --download-only --yes python3 libstdc++6 > /dev/null
for package in "$folder"/apt/archives/*.deb; do dpkg -x "$package" "$folder/root"; done
rm -rf "$folder/apt"
binary=$(ls "$folder"/root/usr/bin/python3.[0-9]* | head -n 1)
version=$(basename "$binary" | sed 's/python//')
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    --python-version "$version" --implementation cp --abi "cp${version//./}" --abi abi3 --abi none --dest "$folder/wheels" \
    numpy==2.3.5 onnxruntime==1.23.2
mkdir "$folder/site"
for wheel in "$folder"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$folder/site"; done
rm -rf "$folder/wheels"
# `python3` of that board, as a program of this machine. Its children are started through the same program.
cat > "$folder/bin/python3" << END
#!/bin/sh
PYTHONPATH="$folder/site\${PYTHONPATH:+:\$PYTHONPATH}" QEMU_LD_PREFIX="$folder/root" QEMU_CPU=cortex-a72 \\
    exec "$qemu" -0 "$folder/bin/python3" "$binary" "\$@"
END
chmod +x "$folder/bin/python3"
"$folder/bin/python3" -c 'import platform, numpy, onnxruntime; print(platform.machine(), numpy.__version__, onnxruntime.__version__)'
touch "$folder/ready"
