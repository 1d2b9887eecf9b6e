/* CRC-32 with zlib's polynomial: carry-less multiplication where the processor has it, else eight
   tables. Include it in one module only and call crc32_prepare() first: the tables are that
   module's own.

   How folding works. A register of 128 bits stands for a polynomial whose remainder is wanted.
   Moving it D bits ahead multiplies it by x^D; modulo P that is (high half) * (x^(D+64) mod P) +
   (low half) * (x^D mod P), which fits into 128 bits again and is added to the data that lies
   there. In zlib's order the lowest bit is the highest power; a product then comes out one place
   short, and a factor of at most 32 bits stands 32 places further on, so the constants are the
   mirrored x^(D+32) and x^(D-32), shifted left by one. What is left in the end is 16 bytes with
   the same remainder as everything before: the tables finish them. */

#ifndef COPYCAT_CRC32_H
#define COPYCAT_CRC32_H

#include <stddef.h>
#include <stdint.h>

#include "little_endian.h"

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define COPYCAT_CRC32_FOLDS 1
#include <cpuid.h>
#include <emmintrin.h>
#include <wmmintrin.h>
#endif

static uint32_t crc32_table[8][256];
static int crc32_can_fold;

static void crc32_prepare(void)
{
    uint32_t n;
    int bit, k;
    for (n = 0; n < 256; n++) {
        uint32_t crc = n;
        for (bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        crc32_table[0][n] = crc;
    }
    for (n = 0; n < 256; n++)
        for (k = 1; k < 8; k++)
            crc32_table[k][n] =
                crc32_table[k - 1][n] >> 8 ^ crc32_table[0][crc32_table[k - 1][n] & 0xFF];
#ifdef COPYCAT_CRC32_FOLDS
    {
        unsigned int eax, ebx, ecx, edx;
        crc32_can_fold = __get_cpuid(1, &eax, &ebx, &ecx, &edx)
                         && (ecx & bit_PCLMUL) && (edx & bit_SSE2);
    }
#endif
}

/* `crc` is the inner state: inverted before the first byte and after the last one. */
static uint32_t crc32_by_tables(uint32_t crc, const uint8_t *p, size_t size)
{
    while (size >= 8) {
        uint32_t low = load32(p) ^ crc, high = load32(p + 4);
        crc = crc32_table[7][low & 0xFF] ^ crc32_table[6][low >> 8 & 0xFF]
              ^ crc32_table[5][low >> 16 & 0xFF] ^ crc32_table[4][low >> 24]
              ^ crc32_table[3][high & 0xFF] ^ crc32_table[2][high >> 8 & 0xFF]
              ^ crc32_table[1][high >> 16 & 0xFF] ^ crc32_table[0][high >> 24];
        p += 8;
        size -= 8;
    }
    while (size--)
        crc = crc >> 8 ^ crc32_table[0][(crc ^ *p++) & 0xFF];
    return crc;
}

#ifdef COPYCAT_CRC32_FOLDS

__attribute__((target("pclmul,sse2")))
static inline __m128i crc32_fold(__m128i x, __m128i factors, __m128i data)
{
    return _mm_xor_si128(
        _mm_xor_si128(
            _mm_clmulepi64_si128(x, factors, 0x00), _mm_clmulepi64_si128(x, factors, 0x11)),
        data);
}

/* `size` is at least 64. */
__attribute__((target("pclmul,sse2")))
static uint32_t crc32_by_folding(uint32_t crc, const uint8_t *p, size_t size)
{
    const __m128i by_512 = _mm_set_epi64x(0x1C6E41596, 0x154442BD4);
    const __m128i by_128 = _mm_set_epi64x(0x0CCAA009E, 0x1751997D0);
    const __m128i *from = (const __m128i *)p;
    __m128i a = _mm_xor_si128(_mm_loadu_si128(from), _mm_cvtsi32_si128((int)crc));
    __m128i b = _mm_loadu_si128(from + 1);
    __m128i c = _mm_loadu_si128(from + 2);
    __m128i d = _mm_loadu_si128(from + 3);
    uint8_t rest[16];
    from += 4;
    size -= 64;
    while (size >= 64) {
        a = crc32_fold(a, by_512, _mm_loadu_si128(from));
        b = crc32_fold(b, by_512, _mm_loadu_si128(from + 1));
        c = crc32_fold(c, by_512, _mm_loadu_si128(from + 2));
        d = crc32_fold(d, by_512, _mm_loadu_si128(from + 3));
        from += 4;
        size -= 64;
    }
    b = crc32_fold(a, by_128, b);
    c = crc32_fold(b, by_128, c);
    d = crc32_fold(c, by_128, d);
    while (size >= 16) {
        d = crc32_fold(d, by_128, _mm_loadu_si128(from));
        from += 1;
        size -= 16;
    }
    _mm_storeu_si128((__m128i *)rest, d);
    crc = crc32_by_tables(0, rest, 16);
    return crc32_by_tables(crc, (const uint8_t *)from, size);
}

#endif

/* The checksum of what had checksum `crc` (0: nothing) followed by `size` bytes at `p`. */
static uint32_t crc32_update(uint32_t crc, const uint8_t *p, size_t size)
{
#ifdef COPYCAT_CRC32_FOLDS
    if (crc32_can_fold && size >= 64)
        return ~crc32_by_folding(~crc, p, size);
#endif
    return ~crc32_by_tables(~crc, p, size);
}

/* As crc32_update, but never folds: what other processors do, so that a test can see it. */
static uint32_t crc32_portable(uint32_t crc, const uint8_t *p, size_t size)
{
    return ~crc32_by_tables(~crc, p, size);
}

#endif
