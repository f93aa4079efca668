/* Makes a program see an x86 CPU with AVX2 at most: no AVX-512, no VNNI, no AMX.
 *
 * Libraries choose their kernels by the CPUID instruction. Linux lets a thread make that instruction
 * fault (arch_prctl(2), ARCH_SET_CPUID) where the CPU or the hypervisor offers it ("cpuid_fault" in
 * /proc/cpuinfo); threads and forked children inherit it, execve ends it. This library, loaded by
 * LD_PRELOAD, turns it on before the program begins, and answers each CPUID from its SIGSEGV handler
 * with what the CPU says less the bits below.
 *
 *     gcc -O2 -shared -fPIC -o without_vnni.so without_vnni.c
 *     LD_PRELOAD=$PWD/without_vnni.so python …
 *
 * WITHOUT=avx512 (the default) leaves AVX2, FMA and F16C; WITHOUT=avx leaves SSE4.2.
 * What is hidden can still be executed: only programs that ask first are led.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif

enum { FAULT = 0, EXECUTE = 1 };

static int no_avx;
static struct sigaction before;

static void set_cpuid(unsigned long mode)
{
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, mode);
}

static uint32_t bit(int place)
{
    return 1u << place;
}

/* Intel SDM volume 2A, CPUID, tables 3-8 to 3-17. */
static void hide(uint32_t leaf, uint32_t subleaf, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d)
{
    const uint32_t avx512_b = bit(16) | bit(17) | bit(21) | bit(26) | bit(27) | bit(28) | bit(30) |
                              bit(31); /* F, DQ, IFMA, PF, ER, CD, BW, VL */
    const uint32_t avx512_c = bit(1) | bit(6) | bit(11) | bit(12) | bit(14);
    /* VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
    const uint32_t avx512_d = bit(2) | bit(3) | bit(8) | bit(23); /* 4VNNIW, 4FMAPS, VP2INT, FP16 */
    const uint32_t amx_d = bit(22) | bit(24) | bit(25);           /* BF16, TILE, INT8 */

    if (leaf == 1 && no_avx) {
        *c &= ~(bit(12) | bit(28) | bit(29)); /* FMA, AVX, F16C */
    } else if (leaf == 7 && subleaf == 0) {
        *b &= ~avx512_b;
        *c &= ~avx512_c;
        *d &= ~(avx512_d | amx_d);
        if (no_avx) {
            *b &= ~bit(5);              /* AVX2 */
            *c &= ~(bit(9) | bit(10)); /* VAES, VPCLMULQDQ */
        }
    } else if (leaf == 7 && subleaf == 1) {
        /* AVX-VNNI, AVX512_BF16, AMX-FP16, AVX-IFMA; AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX,
           AVX-VNNI-INT16, AVX10 */
        *a &= ~(bit(4) | bit(5) | bit(21) | bit(23));
        *d &= ~(bit(4) | bit(5) | bit(8) | bit(10) | bit(19));
    } else if (leaf == 0xd && subleaf == 0) {
        *a &= no_avx ? 0x3u : 0x7u; /* state of x87, SSE and AVX: without AVX-512 and AMX */
    } else if (leaf == 0x1d || leaf == 0x1e || leaf == 0x24) { /* tiles, AVX10 */
        *a = *b = *c = *d = 0;
    }
}

static void pass_on(int number, siginfo_t *info, void *context)
{
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    } else {
        signal(number, SIG_DFL); /* the instruction runs again, and ends the program as it should */
    }
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *at = (const uint8_t *)registers[REG_RIP];
    uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX];
    uint32_t a, b, c, d;

    /* A fault of CPUID is a general protection, which has no address: si_code is SI_KERNEL. A jump
       to nowhere is not, and its instruction can't be read. */
    if (info->si_code != SI_KERNEL || at[0] != 0x0f || at[1] != 0xa2) {
        pass_on(number, info, context);
        return;
    }
    set_cpuid(EXECUTE);
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(subleaf));
    set_cpuid(FAULT);
    hide(leaf, subleaf, &a, &b, &c, &d);
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor(101))) static void begin(void)
{
    const char *without = getenv("WITHOUT");
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};

    no_avx = without && strcmp(without, "avx") == 0;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGSEGV, &action, &before) != 0 ||
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, FAULT) != 0) {
        fputs("error: this kernel, CPU or hypervisor has no CPUID faulting\n", stderr);
        _exit(3);
    }
}
