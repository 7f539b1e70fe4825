/* Loads the image that the command line names, and calls its function `work`. */
#include <dlfcn.h>
#include <stdio.h>

long host(long number) {
    return number + 1;
}

int main(int count, char **arguments) {
    void *image = count == 2 ? dlopen(arguments[1], RTLD_NOW) : NULL;
    long (*work)(long, double) = image ? (long (*)(long, double))dlsym(image, "work") : NULL;
    if (!work) {
        puts(dlerror());
        return 1;
    }
    printf("result %ld\n", work(3, 2.5));
    return 0;
}
