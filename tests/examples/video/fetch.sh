#!/bin/sh
# fetch.sh SOURCE FOLDER: gets a video, whatever ffmpeg can open (a file, http, https), into FOLDER/source.mkv.
#
# What stands under its own name is whole: it is written under another one first. The output is one line of JSON.
set -eu
source=$1 folder=$2

mkdir -p "$folder"
ffmpeg -nostdin -v error -y -i "$source" -map 0 -c copy -map_metadata -1 -fflags +bitexact -f matroska \
  "$folder/source.part$ATTEMPT"
mv "$folder/source.part$ATTEMPT" "$folder/source.mkv"

seconds=$(ffprobe -v error -of csv=p=0 -show_entries format=duration "$folder/source.mkv")
sum=$(sha256sum < "$folder/source.mkv")
printf '{"type":"output","file":"source.mkv","seconds":%d,"sha256":"%s"}\n' "$(printf %.0f "$seconds")" "${sum%% *}"
