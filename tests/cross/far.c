// Loads an image of more code than a call reaches, and calls from each end of it to the other.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

typedef int64_t i64;

// The function that the image imports.
i64 away(i64 x) { return 5 * x; }

int main(int argc, char **argv) {
    void *image = argc == 2 ? dlopen(argv[1], RTLD_NOW) : 0;
    if (!image) {
        puts(argc == 2 ? dlerror() : "usage: far IMAGE");
        return 2;
    }
    i64 (*first)(i64) = (i64(*)(i64))dlsym(image, "first");
    i64 (*last)(i64) = (i64(*)(i64))dlsym(image, "last");
    // last(x) is weak(near(x)), weak(x) is away(x) + 1, near(x) is x + 3.
    i64 at_last = last(1), at_first = first(1);
    printf("%lld %lld\n", (long long)at_last, (long long)at_first);
    // first(x) is away(near(last(x))).
    return !(at_last == 21 && at_first == 120);
}
