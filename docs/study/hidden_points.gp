set terminal svg size 900,540 dynamic enhanced font 'Helvetica,15' background rgb 'white' name 'hidden_points'
set output 'hidden_points.svg'
set title 'Hidden cells: predicted against measured' noenhanced font ',17'
set encoding utf8
set key outside right top vertical Left reverse noenhanced samplen 2 spacing 1.15
set border 3 lc rgb '#404040'
set tics nomirror out
set grid lc rgb '#E4E4E4' lt 1 lw 0.7
set xlabel 'Measured held-out loss (nats)' noenhanced
set xrange [0.9147044585:1.233909107]
set xtics ('1' 1, '1.1' 1.1, '1.2' 1.2)
unset mxtics
set ylabel 'Predicted held-out loss (nats)' noenhanced
set yrange [0.8937824578:1.336733072]
set ytics ('0.9' 0.9, '1' 1, '1.1' 1.1, '1.2' 1.2, '1.3' 1.3)
unset mytics
$s0 << EOD
1.122197298 1.140219984 1.092067819 1.221692118
1.202635865 1.216808858 1.164587266 1.313003574
1.010013855 1.031654646 0.9657683301 1.146706011
1.064513632 1.089268609 1.032727876 1.191642254
0.9318047075 0.9807032705 0.917511955 1.103780892
EOD
$s1 << EOD
1.066660824 1.109528278 1.088041383 1.228521957
1.010013855 1.009394783 0.9940645158 1.122433411
0.9318047075 0.9554390643 0.9310541178 1.061814749
EOD
$s2 << EOD
0.9318047075 0.9318047075 0 0
1.216808858 1.216808858 0 0
EOD
plot $s0 using 1:2:3:4 with yerrorbars pt 4 ps 0.9 lw 1.5 lc rgb '#D55E00' title 'above an eighth of C max', \
  $s1 using 1:2:3:4 with yerrorbars pt 7 ps 0.9 lw 1.5 lc rgb '#0072B2' title 'three dearest on the frontier', \
  $s2 using 1:2 with lines lw 2.2 dt 2 lc rgb '#000000' title 'exact'
unset output
