// Loads an image with the C library's own loader, fills its slots, and calls everything in it. The image `-` is this
// program itself, which an object was linked into.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef int64_t i64;

// The symbols that the image imports.
i64 host_datum = 5;
i64 host_twice(i64 x) { return 2 * x; }

// Its globals, which are symbols for an image of code that contains addresses.
i64 counter_object = 1, table_object[] = {0, 10};
__asm__(".globl \"host:counter\"\n.set \"host:counter\", counter_object\n"
        ".globl \"host:table\"\n.set \"host:table\", table_object");

static char seen[512];
i64 host_look(i64 x) {
    void *frames[16];
    int count = backtrace(frames, 16);
    for (int i = 1; i < count; i++) {
        Dl_info info;
        const char *name = dladdr(frames[i], &info) && info.dli_sname ? info.dli_sname : "?";
        strncat(seen, name, sizeof seen - strlen(seen) - 2);
        strcat(seen, " ");
        if (!strcmp(name, "main")) break;
    }
    return x;
}

static int checks, failures;
#define CHECK(condition) \
    (checks++, (condition) ? 0 : (failures++, printf("line %d: failed: %s\n", __LINE__, #condition)))
#define EQUAL(actual, expected) \
    do { \
        i64 a_ = (actual), e_ = (expected); \
        if (checks++, a_ != e_) { \
            failures++; \
            printf("line %d: %s is %lld, not %lld\n", __LINE__, #actual, (long long)a_, (long long)e_); \
        } \
    } while (0)

static void *image;
static void *get(const char *name) {
    void *found = dlsym(image, name);
    if (!found) {
        printf("the image has no %s\n", name);
        fflush(stdout);
        _Exit(2);
    }
    return found;
}
#define F(name, result, ...) result (*name)(__VA_ARGS__) = (result (*)(__VA_ARGS__))get(#name)
#define D(name, type) type *name = (type *)get(#name)

int main(int argc, char **argv) {
    if (argc != 2 || !(image = dlopen(strcmp(argv[1], "-") ? argv[1] : NULL, RTLD_NOW))) {
        puts(argc == 2 ? dlerror() : "usage: host IMAGE");
        return 2;
    }
    // The slots of globals are filled by one copy; those of symbols, which follow, were filled by `dlopen`. If code
    // contains addresses, there are no slots: `dlopen` has written them, too.
    void **kiln_slots = dlsym(image, "kiln_slots"), *fill[] = {&counter_object, table_object};
    if (kiln_slots) memcpy(kiln_slots, fill, sizeof fill);

    // Data.
    D(numbers, char);
    D(word, i64);
    D(counter, i64);
    D(zeroed, i64);
    D(greeting, char);
    D(table, void *);
    D(chain, void **);
    int32_t n32[2];
    int16_t n16;
    i64 n64;
    double d;
    memcpy(n32, numbers, 8), memcpy(&n16, numbers + 8, 2), memcpy(&n64, numbers + 12, 8), memcpy(&d, numbers + 20, 8);
    CHECK(n32[0] == 10 && n32[1] == -20 && n16 == 0x1234 && numbers[10] == 7);
    EQUAL(n64, 0x1122334455667788);
    CHECK(d == 1.5);
    EQUAL(*word, 0x0102030405060708);
    EQUAL(*counter, 40);
    CHECK(zeroed[0] == 0 && zeroed[1] == 0);
    CHECK(!strcmp(greeting, "hello, world"));
    CHECK((uintptr_t)word % 8 == 0 && (uintptr_t)counter % 8 == 0);

    // Addresses in data.
    CHECK(((i64 (*)(i64))table[0])(21) == 42);
    CHECK(table[1] == get("library_square"));
    CHECK(table[2] == numbers + 4);
    CHECK(table[3] == get("library_bias"));
    CHECK(table[4] == NULL);
    EQUAL(((size_t (*)(const char *))table[5])("four"), 4);
    CHECK(table[6] == (void *)host_twice);
    CHECK(*(char *)table[7] == 'f');
    CHECK(*chain[0] == counter);

    // Code that reads and writes data.
    F(read_odd, void, char *);
    char odd[4] = "";
    read_odd(odd);
    CHECK(!strcmp(odd, "bde"));
    F(count, i64, void);
    EQUAL(count(), 41);
    EQUAL(count(), 42);
    EQUAL(*counter, 42);
    F(read_word, i64, void);
    EQUAL(read_word(), 0x1112131415161718);
    F(offsets, i64, i64);
    EQUAL(offsets(5), 5 + 4 + 5);
    F(constant_tail, int8_t, void);
    EQUAL(constant_tail(), 'y');
    F(through_table, i64, i64, i64);
    EQUAL(through_table(0, 21), 42);
    EQUAL(through_table(1, -9), 81);
    EQUAL(through_table(5, (i64)(intptr_t)greeting), 12);
    EQUAL(through_table(6, 4), 8);

    F(follow, i64, i64 *);
    EQUAL(follow(&n64), 42);
    EQUAL(n64, 99);

    // Slots.
    F(bump, i64, i64);
    EQUAL(bump(5), 60);
    EQUAL(bump(36), 420);
    EQUAL(counter_object, 42);

    // Other modules, the C library, the host.
    F(use_library, i64, i64);
    EQUAL(use_library(5), -(25 + 5 + 1000 + 7));
    EQUAL(*counter, 142);
    F(measure, i64, i64);
    EQUAL(measure(0), 12);
    EQUAL(measure(7), 5);
    F(copy, char *, char *, const char *, i64);
    char text[] = "......";
    CHECK(copy(text, "abc", 3) == text && !strcmp(text, "abc..."));
    F(call_host, i64, i64);
    EQUAL(call_host(10), 45);
    host_datum = -3;
    EQUAL(call_host(1), 1);

    // Floats.
    F(round_up, double, double);
    CHECK(round_up(1.25) == 5.25);
    CHECK(round_up(-0.5) == -0.5);
    F(mix, double, float, double, i64, double, float, float *);
    float root;
    CHECK(mix(0.5f, 2.0, 3, 0.0, 2.0f, &root) == (3.5 * 2.0 + 3.14159265358979311600) * 2.0);
    CHECK(root == 2.0f);

    // Stack arguments, frames, jump tables, atomics.
    F(many, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, double, double);
    EQUAL(many(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2.0, 9.0), (10 - 1) * 2 - 9 - (8 + 7) * 6 + (5 ^ 4) - 3 + 4);
    F(large_frame, i64, i64);
    EQUAL(large_frame(-7), 42);
    F(select_case, i64, int32_t);
    EQUAL(select_case(0), 100);
    EQUAL(select_case(1), 0x123456789abcdef0);
    EQUAL(select_case(2), -3);
    EQUAL(select_case(3), 100);
    EQUAL(select_case(4), -1);
    EQUAL(select_case(-1), -1);
    F(exchange, i64, i64 *, i64);
    i64 cell = 6;
    EQUAL(exchange(&cell, 1), 42);
    EQUAL(cell, 7);

    // Recursion across modules.
    F(is_even, i64, i64);
    EQUAL(is_even(1000), 1);
    EQUAL(is_even(777), 0);
    F(tail_calls, i64, i64);
    EQUAL(tail_calls(1000000), 4000000);

    // Unwinding, out of the image and back into this program.
    F(outer, i64, i64);
    EQUAL(outer(20), 41);
    if (strcmp(seen, "inner outer main ")) {
        failures++;
        printf("the stack is: %s\n", seen);
    }
    checks++;

    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
