/* Stands in for a library of libtorch that is gone, to say so in nanorun's words and to exit with code 3.
 *
 * The loader's own message names no remedy and exits with 127, and no code of the program runs before it. But a
 * library's indirect functions are resolved while it is loaded, before the program's missing symbols are looked up: so
 * the resolver below is what speaks. It makes system calls itself, for nothing else is ready yet. */

static long call(long number, long a, long b, long c) {
  long result;
#if defined(__x86_64__)
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  result = x0;
#else
#error "no stand-in for this processor"
#endif
  return result;
}

#if defined(__x86_64__)
enum { WRITE = 1, EXIT_GROUP = 231 };
#else
enum { WRITE = 64, EXIT_GROUP = 94 };
#endif

static const char message[] = MESSAGE;

static void *resolve(void) {
  call(WRITE, 2, (long)message, sizeof message - 1);
  call(EXIT_GROUP, 3, 0, 0);
  return 0;
}

static void missing(void) __attribute__((ifunc("resolve")));

/* A pointer to the function, so that it is resolved at once. */
void (*const nanorun_missing)(void) = missing;
