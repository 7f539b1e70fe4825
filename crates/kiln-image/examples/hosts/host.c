/* Uses an image from C, with nothing of Kiln:
 *
 *     cargo xtask build crates/kiln-image/examples/hosts/counter.clif -o counter.so
 *     cc crates/kiln-image/examples/hosts/host.c -o host -ldl && ./host ./counter.so
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

static int64_t total = 40;

static void report(int64_t value) { printf("the total is %ld\n", (long)value); }

int main(int count, char **arguments) {
    void *image = count > 1 ? dlopen(arguments[1], RTLD_NOW) : NULL;
    if (!image) {
        fprintf(stderr, "%s\n", count > 1 ? dlerror() : "which image?");
        return 1;
    }
    /* What the image needs, in the order in which `cargo xtask inspect counter.so` lists its slots. */
    void **slots = dlsym(image, "kiln_slots");
    int64_t (*add)(int64_t) = (int64_t(*)(int64_t))dlsym(image, "add");
    if (!slots || !add) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    slots[0] = &total;
    slots[1] = (void *)report;
    printf("%ld\n", (long)add(2));
    return 0;
}
