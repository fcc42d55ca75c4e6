#!/bin/sh
# join.sh FOLDER FILE…: a manifest of all renditions with their checksums, and a picture of them side by side.
set -eu
folder=$1
shift
cd "$folder"

sha256sum "$@" > "manifest.part$ATTEMPT"
mv "manifest.part$ATTEMPT" manifest.txt
ffmpeg -nostdin -v error -y -i "$1" -i "$2" -frames:v 1 -threads 1 -fflags +bitexact -flags:v +bitexact \
  -filter_complex "[0]scale=-2:180[a];[1]scale=-2:180[b];[a][b]hstack" -c:v png -f image2 "sheet.part$ATTEMPT"
mv "sheet.part$ATTEMPT" sheet.png
manifest=$(sha256sum < manifest.txt)
sheet=$(sha256sum < sheet.png)
printf '{"type":"output","manifest":"%s","sheet":"%s"}\n' "${manifest%% *}" "${sheet%% *}"
