set terminal svg size 900,540 dynamic enhanced font 'Helvetica,15' background rgb 'white' name 'transfer'
set output 'transfer.svg'
set title 'Held-out accuracy' noenhanced font ',17'
set encoding utf8
set key outside right top vertical Left reverse noenhanced samplen 2 spacing 1.15
set border 3 lc rgb '#404040'
set tics nomirror out
set grid lc rgb '#E4E4E4' lt 1 lw 0.7
set xlabel 'Training compute (FLOP)' noenhanced
set xrange [3.667687129e+10:7.829584838e+13]
set logscale x
set format x '10^{%L}'
set mxtics 10
set ylabel 'Held-out top-1 (%)' noenhanced
set yrange [27.981:68.469]
set ytics ('30' 30, '40' 40, '50' 50, '60' 60)
unset mytics
$s0 << EOD
5.243904e+10 30.15 0 0
5.243904e+10 31.8 0 0
1.0487808e+11 36.7 0 0
1.0487808e+11 38 0 0
2.0975616e+11 41.6 0 0
2.0975616e+11 43 0 0
4.1951232e+11 45.65 0 0
4.1951232e+11 46.45 0 0
8.3902464e+11 50.65 0 0
8.3902464e+11 51.2 0 0
EOD
$s1 << EOD
2.17239552e+11 35.85 0 0
2.17239552e+11 36.15 0 0
4.34479104e+11 42.8 0 0
4.34479104e+11 44.35 0 0
8.68958208e+11 50.5 0 0
8.68958208e+11 50.55 0 0
1.737916416e+12 54.55 0 0
1.737916416e+12 56.4 0 0
3.475832832e+12 58.25 0 0
3.475832832e+12 61.65 0 0
EOD
$s2 << EOD
8.75077632e+11 38.9 0 0
8.75077632e+11 40.15 0 0
1.750155264e+12 46.25 0 0
1.750155264e+12 47.25 0 0
3.500310528e+12 53.35 0 0
3.500310528e+12 54.4 0 0
7.000621056e+12 58.85 0 0
7.000621056e+12 59.95 0 0
1.400124211e+13 63.05 0 0
1.400124211e+13 63.4 0 0
EOD
$s3 << EOD
3.422601216e+12 42.9 0 0
3.422601216e+12 43.75 0 0
6.845202432e+12 49 0 0
6.845202432e+12 50.05 0 0
1.369040486e+13 54.7 0 0
1.369040486e+13 56.15 0 0
2.738080973e+13 60.7 0 0
2.738080973e+13 61.45 0 0
5.476161946e+13 66.25 0 0
5.476161946e+13 66.3 0 0
EOD
plot $s0 using 1:2 with points pt 7 ps 0.9 lc rgb '#0072B2' title 'nfnet_pico', \
  $s1 using 1:2 with points pt 5 ps 0.9 lc rgb '#D55E00' title 'nfnet_nano', \
  $s2 using 1:2 with points pt 9 ps 0.9 lc rgb '#009E73' title 'nfnet_micro', \
  $s3 using 1:2 with points pt 13 ps 0.9 lc rgb '#CC79A7' title 'nfnet_mini'
unset output
