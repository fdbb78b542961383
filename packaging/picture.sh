#!/bin/sh
# Makes a picture (SVG) of what a terminal has shown: `make demo | packaging/picture.sh >story.svg`. Commands stand out.
set -eu

awk '
    BEGIN { size = 14; line = 19; wide = 0 }
    { gsub(/\033\[[0-9;]*[A-Za-z]/, ""); gsub(/\r/, ""); text[NR] = $0; if (length($0) > wide) wide = length($0) }
    END {
        width = int((wide + 4) * size * 0.602); height = (NR + 2) * line
        printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n", width, height, width, height
        print "<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1c2128\"/>"
        printf "<g font-family=\"monospace\" font-size=\"%d\" fill=\"#adbac7\">\n", size
        for (i = 1; i <= NR; i++) {
            shown = text[i]; gsub(/&/, "\\&amp;", shown); gsub(/</, "\\&lt;", shown); gsub(/>/, "\\&gt;", shown)
            style = ""
            if (text[i] ~ /^ *\$ /) style = " fill=\"#6cb6ff\""
            else if (text[i] ~ /^[0-9]+\. /) style = " fill=\"#f0f6fc\" font-weight=\"bold\""
            else if (text[i] ~ /^PASSED/) style = " fill=\"#6bc46d\" font-weight=\"bold\""
            if (shown != "") printf "<text x=\"%d\" y=\"%d\" xml:space=\"preserve\"%s>%s</text>\n", size, (i + 1) * line, style, shown
        }
        print "</g>\n</svg>"
    }'
