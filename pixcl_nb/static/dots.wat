;; dotAll of common.js: out[i] = row i · vector, whole numbers in −127…127, sixteen at a time. `bytes` of a row is a whole number of 16 (filled up with zeros).
;; The base64 text in common.js is this file, assembled: python -c "from wasmtime import wat2wasm; import base64; print(base64.b64encode(wat2wasm(open('pixcl_nb/static/dots.wat').read())).decode())"
(module
  (memory (export "memory") 1)
  (func (export "dots") (param $row i32) (param $vector i32) (param $out i32) (param $cells i32) (param $bytes i32)
    (local $end i32) (local $at i32) (local $sum v128) (local $a v128) (local $b v128)
    (local.set $end (i32.add (local.get $out) (i32.shl (local.get $cells) (i32.const 2))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $out) (local.get $end)))
      (local.set $sum (v128.const i32x4 0 0 0 0))
      (local.set $at (i32.const 0))
      (loop $more
        (local.set $a (v128.load (i32.add (local.get $row) (local.get $at))))
        (local.set $b (v128.load (i32.add (local.get $vector) (local.get $at))))
        (local.set $sum (i32x4.add (local.get $sum) (i32x4.extadd_pairwise_i16x8_s (i16x8.add
          (i16x8.extmul_low_i8x16_s (local.get $a) (local.get $b)) (i16x8.extmul_high_i8x16_s (local.get $a) (local.get $b))))))
        (br_if $more (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 16))) (local.get $bytes))))
      (i32.store (local.get $out) (i32.add
        (i32.add (i32x4.extract_lane 0 (local.get $sum)) (i32x4.extract_lane 1 (local.get $sum)))
        (i32.add (i32x4.extract_lane 2 (local.get $sum)) (i32x4.extract_lane 3 (local.get $sum)))))
      (local.set $row (i32.add (local.get $row) (local.get $bytes)))
      (local.set $out (i32.add (local.get $out) (i32.const 4)))
      (br $next)))))
