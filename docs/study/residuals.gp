set terminal svg size 900,540 dynamic enhanced font 'Helvetica,15' background rgb 'white' name 'residuals'
set output 'residuals.svg'
set title 'Residuals of the law' noenhanced font ',17'
set encoding utf8
set key outside right top vertical Left reverse noenhanced samplen 2 spacing 1.15
set border 3 lc rgb '#404040'
set tics nomirror out
set grid lc rgb '#E4E4E4' lt 1 lw 0.7
set xlabel 'Training compute (FLOP)' noenhanced
set xrange [3.001185991e+10:9.568373177e+13]
set logscale x
set format x '10^{%L}'
set mxtics 10
set ylabel 'Measured - fitted loss (%)' noenhanced
set yrange [-4.261594334:6.096504983]
set ytics ('-4' -4, '-2' -2, '0' 0, '2' 2, '4' 4, '6' 6)
unset mytics
$s0 << EOD
5.243904e+10 -3.706696157 0 0
1.0487808e+11 -1.850549238 0 0
2.0975616e+11 0.01662499705 0 0
4.1951232e+11 1.813431948 0 0
8.3902464e+11 5.541606806 0 0
EOD
$s1 << EOD
2.17239552e+11 -0.2902785418 0 0
4.34479104e+11 -0.3231710722 0 0
8.68958208e+11 0.2142871453 0 0
1.737916416e+12 -0.3282052076 0 0
3.475832832e+12 -3.248330849 0 0
EOD
$s2 << EOD
8.75077632e+11 2.332496567 0 0
1.750155264e+12 2.782831467 0 0
3.500310528e+12 1.828662881 0 0
7.000621056e+12 0.02988806222 0 0
1.400124211e+13 0.8828869039 0 0
EOD
$s3 << EOD
3.422601216e+12 0.279225643 0 0
6.845202432e+12 -0.06420193922 0 0
1.369040486e+13 -0.009546898998 0 0
2.738080973e+13 -0.0727108525 0 0
5.476161946e+13 -1.354659499 0 0
EOD
$s4 << EOD
4.36992e+10 0 0 0
6.571394335e+13 0 0 0
EOD
plot $s0 using 1:2 with points pt 7 ps 0.9 lc rgb '#0072B2' title 'nfnet_pico', \
  $s1 using 1:2 with points pt 5 ps 0.9 lc rgb '#D55E00' title 'nfnet_nano', \
  $s2 using 1:2 with points pt 9 ps 0.9 lc rgb '#009E73' title 'nfnet_micro', \
  $s3 using 1:2 with points pt 13 ps 0.9 lc rgb '#CC79A7' title 'nfnet_mini', \
  $s4 using 1:2 with lines lw 2.2 dt 2 lc rgb '#000000' notitle
unset output
