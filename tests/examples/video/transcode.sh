#!/bin/sh
# transcode.sh FOLDER SECONDS NAME HEIGHT: makes FOLDER/NAME.mp4 of FOLDER/source.mkv, a piece of two seconds at a time.
#
# Each piece that is done is a checkpoint. Killed and started again, the work continues after the last of them, which it
# finds in RESUME_STATE. One thread and exact bits: the same video gives the same file, byte for byte, however often
# the work was interrupted.
set -eu
folder=$1 seconds=$2 name=$3 height=$4
piece=2
total=$(((seconds + piece - 1) / piece))
pieces=$folder/$name.pieces
exact="-map_metadata -1 -threads 1 -fflags +bitexact -flags:v +bitexact -flags:a +bitexact"

mkdir -p "$pieces"
made=$(printf %s "${RESUME_STATE:-}" | sed -n 's/.*"pieces": *\([0-9][0-9]*\).*/\1/p')
made=${made:-0}
[ "$made" -eq 0 ] || echo "continues after piece $made of $total"

while [ "$made" -lt "$total" ]; do
  # shellcheck disable=SC2086 # The words of $exact are arguments.
  ffmpeg -nostdin -v error -y -ss $((made * piece)) -i "$folder/source.mkv" -t $piece -an -vf "scale=-2:$height" \
    -c:v libx264 -preset veryfast -crf 28 -bf 0 -video_track_timescale 12800 $exact -f mp4 "$pieces/part$ATTEMPT"
  mv "$pieces/part$ATTEMPT" "$pieces/$made.mp4"
  made=$((made + 1))
  printf '{"type":"checkpoint","name":"piece","data":{"pieces":%d}}\n' "$made"
  printf '{"type":"progress","done":%d,"total":%d}\n' "$made" "$total"
done

number=0
while [ "$number" -lt "$total" ]; do
  echo "file '$number.mp4'"
  number=$((number + 1))
done > "$pieces/list$ATTEMPT"
# shellcheck disable=SC2086
ffmpeg -nostdin -v error -y -f concat -i "$pieces/list$ATTEMPT" -i "$folder/source.mkv" -map 0:v -map '1:a?' \
  -c:v copy -c:a aac $exact -f mp4 "$folder/$name.part$ATTEMPT"
mv "$folder/$name.part$ATTEMPT" "$folder/$name.mp4"
sum=$(sha256sum < "$folder/$name.mp4")
printf '{"type":"output","file":"%s.mp4","height":%d,"sha256":"%s"}\n' "$name" "$height" "${sum%% *}"
